//! The admin HTTP endpoint.
