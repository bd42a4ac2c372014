//! masf-backbone
