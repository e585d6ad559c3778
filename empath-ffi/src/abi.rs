//! The types of `include/empath.h`, field for field.

use std::ffi::{c_char, c_int};

use crate::context::Context;

/// `EM_ABI_VERSION`.
pub(crate) const VERSION: u32 = 1;

/// `EM_KIND_Validation`.
pub(crate) const VALIDATION: u32 = 1;

/// `em_validator`.
pub(crate) type Validator = unsafe extern "C" fn(*mut Context) -> c_int;

/// The type of `init`.
pub(crate) type Init = unsafe extern "C" fn(*const c_char) -> c_int;

/// The type of `declare_module`.
pub(crate) type Declare = unsafe extern "C" fn() -> *const RawModule;

/// `em_module`.
#[repr(C)]
pub(crate) struct RawModule {
    pub(crate) abi_version: u32,
    pub(crate) kind: u32,
    pub(crate) name: *const c_char,
    pub(crate) init: Option<Init>,
    pub(crate) validators: Validators,
}

/// The validators of `em_module`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validators {
    pub(crate) connect: Option<Validator>,
    pub(crate) ehlo: Option<Validator>,
    pub(crate) mail_from: Option<Validator>,
    pub(crate) rcpt_to: Option<Validator>,
    pub(crate) data: Option<Validator>,
}

/// `em_functions`.
#[repr(C)]
pub(crate) struct Functions {
    pub(crate) peer: extern "C" fn(*const Context) -> *const c_char,
    pub(crate) local: extern "C" fn(*const Context) -> *const c_char,
    pub(crate) helo: extern "C" fn(*const Context) -> *const c_char,
    pub(crate) listener: extern "C" fn(*const Context, *const c_char) -> *const c_char,
    pub(crate) sender: extern "C" fn(*const Context) -> *const c_char,
    pub(crate) recipients: extern "C" fn(*const Context) -> usize,
    pub(crate) recipient: extern "C" fn(*const Context, usize) -> *const c_char,
    pub(crate) metadata: extern "C" fn(*const Context, *const c_char) -> *const c_char,
    pub(crate) set_metadata: extern "C" fn(*mut Context, *const c_char, *const c_char) -> c_int,
    pub(crate) set_response: extern "C" fn(*mut Context, *const c_char) -> c_int,
    pub(crate) name: extern "C" fn(*const Context) -> *const c_char,
    pub(crate) user: extern "C" fn(*const Context) -> *const c_char,
    pub(crate) tls_version: extern "C" fn(*const Context) -> *const c_char,
    pub(crate) tls_cipher: extern "C" fn(*const Context) -> *const c_char,
    pub(crate) tls_certificate: extern "C" fn(*const Context) -> *const c_char,
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs, mem::offset_of, process::Command};

    use super::*;

    /// The C compiler's opinion of the header against ours of the types here.
    #[test]
    fn the_header_lays_out_the_same_types() {
        let mut source = String::from("#include \"empath.h\"\n");
        let mut same = |ours: usize, theirs: &str| {
            writeln!(source, "_Static_assert({ours} == {theirs}, \"{theirs}\");").unwrap();
        };
        same(VERSION as usize, "EM_ABI_VERSION");
        same(VALIDATION as usize, "EM_KIND_Validation");
        same(size_of::<RawModule>(), "sizeof(em_module)");
        same(size_of::<Functions>(), "sizeof(em_functions)");
        same(offset_of!(RawModule, abi_version), "offsetof(em_module, abi_version)");
        same(offset_of!(RawModule, kind), "offsetof(em_module, kind)");
        same(offset_of!(RawModule, name), "offsetof(em_module, name)");
        same(offset_of!(RawModule, init), "offsetof(em_module, init)");
        same(offset_of!(RawModule, validators.connect), "offsetof(em_module, connect)");
        same(offset_of!(RawModule, validators.ehlo), "offsetof(em_module, ehlo)");
        same(offset_of!(RawModule, validators.mail_from), "offsetof(em_module, mail_from)");
        same(offset_of!(RawModule, validators.rcpt_to), "offsetof(em_module, rcpt_to)");
        same(offset_of!(RawModule, validators.data), "offsetof(em_module, data)");
        same(offset_of!(Functions, peer), "offsetof(em_functions, peer)");
        same(offset_of!(Functions, local), "offsetof(em_functions, local)");
        same(offset_of!(Functions, helo), "offsetof(em_functions, helo)");
        same(offset_of!(Functions, listener), "offsetof(em_functions, listener)");
        same(offset_of!(Functions, sender), "offsetof(em_functions, sender)");
        same(offset_of!(Functions, recipients), "offsetof(em_functions, recipients)");
        same(offset_of!(Functions, recipient), "offsetof(em_functions, recipient)");
        same(offset_of!(Functions, metadata), "offsetof(em_functions, metadata)");
        same(offset_of!(Functions, set_metadata), "offsetof(em_functions, set_metadata)");
        same(offset_of!(Functions, set_response), "offsetof(em_functions, set_response)");
        same(offset_of!(Functions, name), "offsetof(em_functions, name)");
        same(offset_of!(Functions, user), "offsetof(em_functions, user)");
        same(offset_of!(Functions, tls_version), "offsetof(em_functions, tls_version)");
        same(offset_of!(Functions, tls_cipher), "offsetof(em_functions, tls_cipher)");
        same(offset_of!(Functions, tls_certificate), "offsetof(em_functions, tls_certificate)");

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("layout.c");
        fs::write(&file, source).unwrap();
        let compiled = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
            .arg(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include"))
            .arg(&file)
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    }
}
