//! One program for the tests that need no process of their own: each program compiles the generic code that it calls, and is
//! linked, by itself.

mod api;
mod bad_input;
mod distill;
mod end_to_end;
mod extend;
mod fusion;
mod report;
mod transformer;
