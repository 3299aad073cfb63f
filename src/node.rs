//! THE supervision tree, written down once: config -> child specs.
