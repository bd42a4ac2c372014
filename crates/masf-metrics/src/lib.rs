//! masf-metrics
