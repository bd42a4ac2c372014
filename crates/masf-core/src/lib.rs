//! masf-core
