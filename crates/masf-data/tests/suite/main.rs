//! One program for all tests of the public interface: a program for each file would take four times as long to compile.

mod decoding;
mod layouts;
mod loading;
mod resizing;
