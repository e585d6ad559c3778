use std::{
    ffi::{CStr, CString, NulError, c_int},
    fs, io, mem,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    ptr,
    time::Duration,
};

use empath_common::{Asked, Hook, Query, Reply, Verdict};
use libloading::Library;

use crate::{
    ModuleConfig,
    abi::{self, Declare, RawModule, Validators},
    context::Context,
    workers::Workers,
};

/// A loaded module. Its validators are asked like any other [`Hook`].
///
/// The library stays in memory until the process ends, also when this is dropped: its code may still be running.
pub struct Module {
    name: String,
    validators: Validators,
    deadline: Duration,
    workers: Workers,
}

/// Why a module was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not there or can't be read.
    #[error("can't open the module {path}")]
    Open {
        /// The library.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Anybody on this machine could put code into the daemon.
    #[error("the module {path} can be written by everybody; run `chmod o-w` on it")]
    WorldWritable {
        /// The library.
        path: PathBuf,
    },
    /// Not a shared library, or one that needs something that is not there.
    #[error("can't load the module {path}")]
    Library {
        /// The library.
        path: PathBuf,
        /// The linker's reason.
        source: libloading::Error,
    },
    /// The library has no `declare_module`, or it returned NULL or a module without a name.
    #[error("{path} does not declare a module; use EM_DECLARE_MODULE of empath.h")]
    Declaration {
        /// The library.
        path: PathBuf,
    },
    /// Built with another version of `empath.h`.
    #[error(
        "the module {path} has ABI version {found}, this is {}; build it with this version's empath.h",
        abi::VERSION
    )]
    AbiVersion {
        /// The library.
        path: PathBuf,
        /// The module's version.
        found: u32,
    },
    /// A kind of module that this version does not know.
    #[error("the module {path} is of the unknown kind {kind}")]
    Kind {
        /// The library.
        path: PathBuf,
        /// The module's kind.
        kind: u32,
    },
    /// The argument contains NUL.
    #[error("the argument of the module {path} contains NUL")]
    Argument {
        /// The library.
        path: PathBuf,
        /// Where.
        source: NulError,
    },
    /// The module's initialisation failed.
    #[error("the initialisation of the module {path} failed with {status}")]
    Init {
        /// The library.
        path: PathBuf,
        /// What `init` returned.
        status: c_int,
    },
    /// No threads for the module's callbacks.
    #[error("can't start threads for the module {path}")]
    Threads {
        /// The library.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Module {
    /// Loads and initialises the module. Blocks for as long as the initialisation takes.
    pub fn load(config: &ModuleConfig) -> Result<Self, LoadError> {
        // Absolute, so that the linker does not look for it elsewhere.
        let path = config.path.as_path();
        let open = |source| LoadError::Open { path: path.into(), source };
        let path = fs::canonicalize(path).map_err(open)?;
        if fs::metadata(&path).map_err(open)?.permissions().mode() & 0o002 != 0 {
            return Err(LoadError::WorldWritable { path });
        }
        let module = declaration(&path)?;
        let name = name(module).ok_or_else(|| LoadError::Declaration { path: path.clone() })?;
        let workers =
            Workers::start(&name).map_err(|source| LoadError::Threads { path: path.clone(), source })?;
        init(module, config.argument.as_deref(), &path)?;
        tracing::info!(module = name, path = %path.display(), "module loaded");
        Ok(Self { name, validators: module.validators, deadline: config.deadline, workers })
    }

    /// What the module calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn refuse(&self, why: impl std::fmt::Display) -> Verdict {
        tracing::warn!(module = self.name, "{why}");
        Verdict::Refuse(Reply::new(451, (4, 3, 0), "Local error in processing"))
    }
}

/// Loads the library for good, and returns what it declares, of this ABI version.
fn declaration(path: &Path) -> Result<&'static RawModule, LoadError> {
    // SAFETY: loading runs the library's constructors. The operator has chosen this file, and nobody else can
    // write it.
    let library = unsafe { Library::new(path) };
    let library = library.map_err(|source| LoadError::Library { path: path.into(), source })?;
    // SAFETY: a library that exports this name exports a function of this type: empath.h declares it.
    let module = unsafe { library.get::<Declare>(c"declare_module") }.map_or(ptr::null(), |declare| {
        // SAFETY: as above; the function takes nothing.
        unsafe { declare() }
    });
    if module.is_null() {
        return Err(LoadError::Declaration { path: path.into() });
    }
    mem::forget(library);
    // SAFETY: not null, and the header asks for a static object, which begins with its ABI version in every version.
    let found = unsafe { *module.cast::<u32>() };
    if found != abi::VERSION {
        return Err(LoadError::AbiVersion { path: path.into(), found });
    }
    // SAFETY: as above; of this version it is an `em_module`, and it stays, because the library does.
    let module = unsafe { &*module };
    if module.kind != abi::VALIDATION {
        return Err(LoadError::Kind { path: path.into(), kind: module.kind });
    }
    Ok(module)
}

fn name(module: &RawModule) -> Option<String> {
    if module.name.is_null() {
        return None;
    }
    // SAFETY: not null, and the header asks for a static string.
    let name = unsafe { CStr::from_ptr(module.name) };
    name.to_str().ok().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn init(module: &RawModule, argument: Option<&str>, path: &Path) -> Result<(), LoadError> {
    let Some(init) = module.init else { return Ok(()) };
    let argument = argument.map(CString::new).transpose();
    let argument = argument.map_err(|source| LoadError::Argument { path: path.into(), source })?;
    // SAFETY: the ABI version vouches for the function's type; the argument lives until it has returned.
    let status = unsafe { init(argument.as_ref().map_or(ptr::null(), |argument| argument.as_ptr())) };
    if status == 0 { Ok(()) } else { Err(LoadError::Init { path: path.into(), status }) }
}

impl Hook for Module {
    fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a> {
        let validator = match query {
            Query::Connect(_) => self.validators.connect,
            Query::Ehlo(_) => self.validators.ehlo,
            Query::MailFrom(..) => self.validators.mail_from,
            Query::RcptTo(..) => self.validators.rcpt_to,
            Query::Data(..) => self.validators.data,
        };
        let Some(validator) = validator else {
            return Asked::Now(Verdict::Accept.into());
        };
        if self.workers.hang(self.deadline) {
            return Asked::Now(self.refuse("all threads of the module hang").into());
        }
        let context = Box::new(Context::new(query));
        Asked::Later(Box::pin(async move {
            let answer = self.workers.call(validator, context, self.deadline).await;
            answer.unwrap_or_else(|why| self.refuse(why).into())
        }))
    }
}
