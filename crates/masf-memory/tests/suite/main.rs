//! One program for the tests of the public interface that need no process of their own: a program for each file would take four times
//! as long to compile.

mod bank;
#[path = "../common/mod.rs"]
mod common;
mod cross_fit;
mod extend;
mod reference;
