//! `em_context`: what a callback is asked about, and what it says. Owns everything in it, because a callback may
//! outlive the question.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use empath_common::{
    Answer, Client, EnhancedStatus, Envelope, Escaped, ForwardPath, Metadata, Query, Reply, ReplyCode,
    ReversePath, Verdict,
};

use crate::abi::Functions;

/// Most octets of a response's text that are used: it fits one line (RFC 5321 §4.5.3.1.5).
const MAX_RESPONSE: usize = 400;

/// `struct em_context` with what stands behind it. C sees the first field alone.
#[repr(C)]
pub(crate) struct Context {
    functions: &'static Functions,
    peer: CString,
    local: CString,
    helo: Option<CString>,
    name: Option<CString>,
    user: Option<CString>,
    tls: Option<Tls>,
    listener: Vec<(CString, CString)>,
    sender: Option<CString>,
    recipients: Vec<CString>,
    /// What can be read: from before, and from this call.
    metadata: Vec<(CString, CString)>,
    /// What this call has stored.
    stored: Metadata,
    response: Option<String>,
}

/// How the session is encrypted.
struct Tls {
    version: CString,
    cipher: CString,
    certificate: Option<CString>,
}

impl Context {
    pub(crate) fn new(query: Query<'_>) -> Self {
        match query {
            Query::Connect(client) | Query::Ehlo(client) => Self::of(client, None, &[]),
            Query::MailFrom(client, sender) => Self::of(client, Some(sender), &[]),
            Query::RcptTo(client, sender, recipient) => {
                Self::of(client, Some(sender), std::slice::from_ref(recipient))
            }
            Query::Data(client, envelope) => Self::of_envelope(client, envelope),
        }
    }

    fn of_envelope(client: &Client, envelope: &Envelope) -> Self {
        let metadata = envelope.metadata.iter().map(|(name, value)| (c_string(name), c_string(value)));
        let mut context = Self::of(client, Some(&envelope.reverse_path), envelope.recipients());
        context.metadata = metadata.collect();
        context
    }

    fn of(client: &Client, sender: Option<&ReversePath>, recipients: &[ForwardPath]) -> Self {
        Self {
            functions: &FUNCTIONS,
            peer: c_string(&client.peer.to_string()),
            local: c_string(&client.local.to_string()),
            helo: client.helo.as_deref().map(c_string),
            name: client.name.as_deref().map(c_string),
            user: client.user.as_deref().map(c_string),
            tls: client.tls.as_ref().map(|tls| Tls {
                version: c_string(tls.version),
                cipher: c_string(tls.cipher),
                certificate: tls.certificate.as_deref().map(c_string),
            }),
            listener: client.context.iter().map(|(name, value)| (c_string(name), c_string(value))).collect(),
            sender: sender.map(|sender| c_string(sender.as_str())),
            recipients: recipients.iter().map(|recipient| c_string(recipient.as_str())).collect(),
            metadata: Vec::new(),
            stored: Metadata::default(),
            response: None,
        }
    }

    /// What the callback's answer means. `None` when it means nothing.
    pub(crate) fn answer(self, answer: c_int) -> Option<Answer> {
        let verdict = match u16::try_from(answer).ok()? {
            0 => Verdict::Accept,
            code @ 400..=599 => {
                Verdict::Refuse(refusal(ReplyCode::new(code).ok()?, self.response.as_deref()))
            }
            _ => return None,
        };
        Some(Answer { verdict, metadata: self.stored })
    }

    fn set_metadata(&mut self, name: CString, value: CString) -> Option<()> {
        let (text, content) = (name.to_str().ok()?, value.to_str().ok()?);
        self.stored.insert(text.to_owned(), content.to_owned()).ok()?;
        self.metadata.retain(|(known, _)| *known != name);
        self.metadata.push((name, value));
        Some(())
    }
}

fn refusal(code: ReplyCode, response: Option<&str>) -> Reply {
    let class = if code.is_permanent() { 5 } else { 4 };
    let default = if class == 5 { "Refused by policy" } else { "Refused by policy for now" };
    let response = response.unwrap_or(default);
    let given = response.split_once(' ').unwrap_or((response, default));
    let (status, text) = match (given.0.parse::<EnhancedStatus>(), given.1) {
        (Ok(status), text) if status.class == class => (status, text),
        _ => (EnhancedStatus::new(class, 7, 1), response),
    };
    Reply { code, enhanced: Some(status), text: text.to_owned().into() }
}

/// One line of ASCII, for a reply (RFC 6531 §3.7.4 allows no more without SMTPUTF8).
fn one_line(text: &CStr) -> String {
    let octets = text.to_bytes();
    let octets = octets.get(..MAX_RESPONSE).unwrap_or(octets);
    let line = Escaped(octets).to_string();
    line.chars().map(|c| if c.is_ascii() { c } else { '?' }).take(MAX_RESPONSE).collect()
}

/// Text as C has it. NUL stands in no address and no metadata; where a listener's context has one, it is lost.
fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

fn find(values: &[(CString, CString)], name: *const c_char) -> *const c_char {
    let Some(name) = text(name) else {
        return ptr::null();
    };
    pointer(values.iter().find(|(known, _)| known.as_c_str() == name).map(|(_, value)| value))
}

/// What a module gave as a string. The lifetime ends with the call into which it was given.
fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the header asks for NULL or a NUL-terminated string that outlives the call, and the module keeps that.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// The context that a module gives back.
fn read<'a>(context: *const Context) -> &'a Context {
    // SAFETY: the module got this pointer as its callback's argument and must not use it elsewhere or later; the
    // worker that made it keeps the context alive, and does not touch it, until the callback has returned.
    unsafe { &*context }
}

/// The context that a module changes.
fn write<'a>(context: *mut Context) -> &'a mut Context {
    // SAFETY: as in `read`; no other reference exists during a callback's call, since those that `read` gives end
    // before its caller returns to the module.
    unsafe { &mut *context }
}

static FUNCTIONS: Functions = Functions {
    peer,
    local,
    helo,
    listener,
    sender,
    recipients,
    recipient,
    metadata,
    set_metadata,
    set_response,
    name,
    user,
    tls_version,
    tls_cipher,
    tls_certificate,
};

extern "C" fn peer(context: *const Context) -> *const c_char {
    read(context).peer.as_ptr()
}

extern "C" fn local(context: *const Context) -> *const c_char {
    read(context).local.as_ptr()
}

extern "C" fn helo(context: *const Context) -> *const c_char {
    pointer(read(context).helo.as_ref())
}

extern "C" fn name(context: *const Context) -> *const c_char {
    pointer(read(context).name.as_ref())
}

extern "C" fn user(context: *const Context) -> *const c_char {
    pointer(read(context).user.as_ref())
}

extern "C" fn tls_version(context: *const Context) -> *const c_char {
    pointer(read(context).tls.as_ref().map(|tls| &tls.version))
}

extern "C" fn tls_cipher(context: *const Context) -> *const c_char {
    pointer(read(context).tls.as_ref().map(|tls| &tls.cipher))
}

extern "C" fn tls_certificate(context: *const Context) -> *const c_char {
    pointer(read(context).tls.as_ref().and_then(|tls| tls.certificate.as_ref()))
}

extern "C" fn listener(context: *const Context, name: *const c_char) -> *const c_char {
    find(&read(context).listener, name)
}

extern "C" fn sender(context: *const Context) -> *const c_char {
    pointer(read(context).sender.as_ref())
}

extern "C" fn recipients(context: *const Context) -> usize {
    read(context).recipients.len()
}

extern "C" fn recipient(context: *const Context, index: usize) -> *const c_char {
    pointer(read(context).recipients.get(index))
}

extern "C" fn metadata(context: *const Context, name: *const c_char) -> *const c_char {
    find(&read(context).metadata, name)
}

extern "C" fn set_metadata(context: *mut Context, name: *const c_char, value: *const c_char) -> c_int {
    // Copied first: the value may be one that is replaced here.
    let pair = text(name).map(CStr::to_owned).zip(text(value).map(CStr::to_owned));
    let stored = pair.and_then(|(name, value)| write(context).set_metadata(name, value));
    if stored.is_some() { 0 } else { -1 }
}

extern "C" fn set_response(context: *mut Context, response: *const c_char) -> c_int {
    let Some(response) = text(response) else { return -1 };
    write(context).response = Some(one_line(response));
    0
}
