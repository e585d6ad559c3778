use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Failure, FailureCode, Request};

/// The version of the protocol. It changes when an old client would misunderstand.
pub const VERSION: u64 = 1;

/// Octets of the line of a request, its newline included.
pub(crate) const MAX_REQUEST: usize = 64 << 10;

/// Octets of one line of an answer, its newline included.
pub(crate) const MAX_ANSWER: usize = 16 << 20;

/// A request as it is sent.
#[derive(Debug, Serialize)]
pub(crate) struct Call<'a> {
    pub(crate) v: u64,
    #[serde(flatten)]
    pub(crate) request: &'a Request,
}

/// One line of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line<T> {
    pub(crate) v: u64,
    #[serde(flatten)]
    pub(crate) part: Part<T>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part<T> {
    /// One object of the answer.
    Ok(T),
    /// The answer takes its time.
    Wait(bool),
    /// The answer is complete.
    End(bool),
    /// The answer ends with a failure.
    Error(Failure),
}

/// Reads the line of a request. The version is looked at first, so that a client of another one is told about that
/// and not about a field.
pub(crate) fn parse(line: &[u8]) -> Result<Request, Failure> {
    let bad = |error: serde_json::Error| {
        Failure::new(FailureCode::BadRequest, format!("not a control request: {error}"))
    };
    let mut value: Value = serde_json::from_slice(line).map_err(bad)?;
    let version = value.as_object_mut().and_then(|object| object.remove("v"));
    match version.as_ref().map(Value::as_u64) {
        Some(Some(VERSION)) => {}
        Some(Some(other)) => {
            let message = format!(
                "the daemon speaks version {VERSION} of the control protocol, the client version {other}"
            );
            return Err(Failure::new(FailureCode::UnsupportedVersion, message));
        }
        Some(None) | None => {
            let message =
                format!("a control request is a JSON object with \"v\": {VERSION} and a \"command\"");
            return Err(Failure::new(FailureCode::BadRequest, message));
        }
    }
    let request = Request::deserialize(value).map_err(bad)?;
    request.check()?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let filter = crate::Filter { domain: Some("b.test".parse().unwrap()), ..Default::default() };
        let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        for request in [
            Request::Ping {},
            Request::Status {},
            Request::List { filter: filter.clone(), limit: Some(3) },
            Request::List { filter: crate::Filter::default(), limit: None },
            Request::View { id },
            Request::Why { id },
            Request::Stats {},
            Request::Retry { messages: crate::Selection::All },
            Request::Retry { messages: crate::Selection::Filter(filter) },
            Request::Delete { messages: crate::Selection::Ids(vec![id]) },
            Request::Reload {},
            Request::SpoolStats {},
            Request::SpoolVerify {},
            Request::DamagedList {},
            Request::DamagedExport { name: "1.octets".to_owned() },
            Request::DamagedDiscard { names: vec!["1.octets".to_owned()] },
        ] {
            let line = serde_json::to_string(&Call { v: VERSION, request: &request }).unwrap();
            assert!(line.starts_with(r#"{"v":1,"command":""#), "{line}");
            assert!(line.contains(request.command()), "{line}");
            assert_eq!(parse(line.as_bytes()).unwrap(), request);
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        use FailureCode::{BadRequest, UnsupportedVersion};
        let deep = "[".repeat(60_000);
        for (line, code, words) in [
            ("", BadRequest, "EOF"),
            ("{", BadRequest, "EOF"),
            ("[]", BadRequest, "JSON object"),
            ("{}", BadRequest, "JSON object"),
            (r#"{"v":"1","command":"system.ping"}"#, BadRequest, "JSON object"),
            (r#"{"v":2,"command":"system.dance"}"#, UnsupportedVersion, "version 2"),
            (r#"{"v":1}"#, BadRequest, "command"),
            (r#"{"v":1,"command":"system.dance"}"#, BadRequest, "system.dance"),
            (r#"{"v":1,"command":"system.ping","hard":true}"#, BadRequest, "hard"),
            (r#"{"v":1,"command":"queue.view","id":"../../etc/passwd"}"#, BadRequest, "not a"),
            (r#"{"v":1,"command":"queue.delete"}"#, BadRequest, "messages"),
            (r#"{"v":1,"command":"queue.delete","messages":{"filter":{}}}"#, BadRequest, "no condition"),
            (r#"{"v":1,"command":"queue.list","filter":{"state":"held"}}"#, BadRequest, "state"),
            (r#"{"v":1,"command":"spool.damaged.discard","names":[]}"#, BadRequest, "names nothing"),
            (deep.as_str(), BadRequest, "recursion"),
        ] {
            let failure = parse(line.as_bytes()).unwrap_err();
            assert_eq!(failure.code, code, "{failure}");
            assert!(failure.message.contains(words), "{failure}");
        }
    }
}
