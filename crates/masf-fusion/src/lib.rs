//! masf-fusion
