//! masf-data
