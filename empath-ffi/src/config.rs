use std::{path::PathBuf, time::Duration};

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A plugin module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModuleConfig {
    /// The shared library.
    ///
    /// It must not be writable by everybody. It is loaded once, at start; a module that can't be loaded, or whose
    /// initialisation fails, keeps the daemon from starting. No default.
    pub path: PathBuf,

    /// Text that is given to the module's initialisation.
    ///
    /// What it means is up to the module. Default: none.
    pub argument: Option<String>,

    /// How long a callback of the module may take.
    ///
    /// After that the client gets 451 and tries again later. Default: `"5s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub deadline: Duration,
}

impl Default for ModuleConfig {
    fn default() -> Self {
        Self { path: PathBuf::new(), argument: None, deadline: Duration::from_secs(5) }
    }
}

impl ModuleConfig {
    /// What is wrong with it.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.path.as_os_str().is_empty() {
            problems.push(Problem::new("path", "a module needs the path of its shared library"));
        }
        if self.argument.as_ref().is_some_and(|argument| argument.contains('\0')) {
            problems.push(Problem::new("argument", "an argument can't contain NUL"));
        }
        if self.deadline.is_zero() {
            problems.push(Problem::new("deadline", "must be longer than zero"));
        }
        problems
    }
}
