//! One program for the tests that need no process of their own: a program for each file would take eight times as long to compile.

mod api;
mod bad_input;
mod distill;
mod end_to_end;
mod extend;
mod fusion;
mod report;
mod transformer;
