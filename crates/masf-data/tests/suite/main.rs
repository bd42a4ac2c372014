//! One program for all tests of the public interface: each program compiles the generic code that it calls, and is
//! linked, by itself.

mod decoding;
mod layouts;
mod loading;
mod resizing;
