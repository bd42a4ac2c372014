//! One program for the tests of the public interface that need no process of their own: each program compiles the generic code
//! that it calls, and is linked, by itself.

mod bank;
#[path = "../common/mod.rs"]
mod common;
mod cross_fit;
mod extend;
mod reference;
