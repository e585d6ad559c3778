//! empath
