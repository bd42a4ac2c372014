//! masf-memory
