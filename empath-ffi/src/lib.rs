//! Plugin modules: shared libraries with the C ABI of `include/empath.h`, loaded at start and asked as hooks.
//!
//! - [`ModuleConfig`]: which library, with which argument and deadline
//! - [`Module`]: a loaded library, an [`empath_common::Hook`]
//! - [`memory`]: what else only C can do
//!
//! A module can refuse, and it can store metadata about a message. It can't hold anything up for longer than its
//! deadline: its callbacks run on threads of their own, of which there are few, and an answer that is late,
//! unknown or missing is 451. What it can do is crash the process: it is loaded into it.
#![expect(
    unsafe_code,
    reason = "the C ABI: loading libraries, calling them, and being called by them; malloc_trim"
)]

mod abi;
mod config;
mod context;
pub mod memory;
mod module;
mod workers;

pub use config::ModuleConfig;
pub use module::{LoadError, Module};
