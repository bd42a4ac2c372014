//! masf
