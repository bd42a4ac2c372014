//! One program for all tests of the public interface: a program for each file would take five times as long to compile.

mod common;
mod gradients;
mod reference;
mod scattering;
mod tools;
mod transforms;
