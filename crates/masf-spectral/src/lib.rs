//! masf-spectral
