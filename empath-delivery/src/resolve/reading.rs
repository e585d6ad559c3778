//! What a DNS message says to a question, CNAMEs followed.

use std::{net::IpAddr, time::Duration};

use empath_common::Domain;
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, RecordType, rdata},
};

use super::lookup::{Answer, Exchange, Found, LookupError, Mx, Records};

/// Most CNAMEs that are followed. Recursive servers follow 8 to 16.
const MAX_CHAIN: usize = 16;

/// What one message says.
#[derive(Debug)]
pub(super) struct Read {
    outcome: Outcome,
    /// CNAMEs that were followed in it, and their shortest time to live.
    aliases: usize,
    ttl: Option<Duration>,
}

#[derive(Debug)]
enum Outcome {
    Answer(Answer),
    /// A CNAME without what it leads to.
    Alias(Name),
}

/// CNAMEs over several messages.
#[derive(Debug, Default)]
pub(super) struct Chain {
    aliases: usize,
    ttl: Option<Duration>,
}

impl Chain {
    /// The answer, or the name to ask for next.
    pub(super) fn follow(&mut self, read: Read) -> Result<Answer, Name> {
        self.aliases += read.aliases;
        self.ttl = self.ttl.into_iter().chain(read.ttl).min();
        match read.outcome {
            // A loop, or what is no better.
            _ if self.aliases > MAX_CHAIN => Ok(Err(LookupError::Failed)),
            Outcome::Alias(target) => Err(target),
            Outcome::Answer(Err(error)) => Ok(Err(self.shorten(error))),
            Outcome::Answer(Ok(found)) => {
                let ttl = self.ttl.map_or(found.ttl, |ttl| ttl.min(found.ttl));
                Ok(Ok(Found { ttl, ..found }))
            }
        }
    }

    /// "No" behind CNAMEs is true no longer than they are.
    pub(super) fn shorten(&self, error: LookupError) -> LookupError {
        let shorter = |ttl: Option<Duration>| ttl.map(|ttl| self.ttl.map_or(ttl, |chain| chain.min(ttl)));
        match error {
            LookupError::NoSuchName(ttl) => LookupError::NoSuchName(shorter(ttl)),
            LookupError::NoRecords(ttl) => LookupError::NoRecords(shorter(ttl)),
            error => error,
        }
    }
}

impl Read {
    /// Reads the answer to the question for `kind` at `name`.
    pub(super) fn of(message: &Message, name: &Name, kind: RecordType) -> Self {
        let mut read = Self { outcome: Outcome::Answer(Err(LookupError::Failed)), aliases: 0, ttl: None };
        let mut name = name.clone();
        while read.aliases <= MAX_CHAIN {
            let here = || message.answers.iter().filter(|record| record.name == name);
            let wanted = || here().filter(|record| record.data.record_type() == kind);
            if let Some(shortest) = wanted().map(|record| ttl(record.ttl)).min() {
                let records = records(kind, wanted().map(|record| &record.data));
                read.outcome = Outcome::Answer(Ok(Found { records, ttl: shortest }));
                return read;
            }
            let alias = here().find_map(|record| match &record.data {
                RData::CNAME(target) => Some((target.0.clone(), ttl(record.ttl))),
                _ => None,
            });
            let Some((target, alias)) = alias else { break };
            read.aliases += 1;
            read.ttl = Some(read.ttl.map_or(alias, |ttl| ttl.min(alias)));
            name = target;
        }
        let negative = negative_ttl(message);
        read.outcome = match message.metadata.response_code {
            ResponseCode::NXDomain => Outcome::Answer(Err(LookupError::NoSuchName(negative))),
            ResponseCode::NoError if read.aliases > 0 && negative.is_none() => Outcome::Alias(name),
            ResponseCode::NoError => Outcome::Answer(Err(LookupError::NoRecords(negative))),
            ResponseCode::Refused => Outcome::Answer(Err(LookupError::Refused)),
            _ => Outcome::Answer(Err(LookupError::Failed)),
        };
        read
    }
}

fn records<'a>(kind: RecordType, data: impl Iterator<Item = &'a RData>) -> Records {
    if kind == RecordType::MX {
        let mx = |data: &RData| if let RData::MX(mx) = data { Some(read_mx(mx)) } else { None };
        return Records::mx(data.filter_map(mx).collect());
    }
    Records::addresses(data.filter_map(|data| match data {
        RData::A(v4) => Some(IpAddr::V4(v4.0)),
        RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
        _ => None,
    }))
}

fn read_mx(mx: &rdata::MX) -> Mx {
    let exchange = if mx.exchange.is_root() {
        Exchange::Root
    } else {
        let name = mx.exchange.to_ascii();
        Domain::parse_host(name.trim_end_matches('.')).map_or(Exchange::Invalid, Exchange::Host)
    };
    Mx { preference: mx.preference, exchange }
}

/// RFC 2308 §5: how long "no" may be remembered.
fn negative_ttl(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(ttl(record.ttl.min(soa.minimum))),
        _ => None,
    })
}

/// RFC 2181 §8: a time to live with the highest bit set is zero.
pub(super) fn ttl(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(if seconds > i32::MAX.unsigned_abs() { 0 } else { seconds }))
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{op::OpCode, rr::Record};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn message(code: ResponseCode, answers: &[(&str, u32, RData)]) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = code;
        for (owner, ttl, data) in answers {
            message.add_answer(Record::from_rdata(name(owner), *ttl, data.clone()));
        }
        message
    }

    fn cname(target: &str) -> RData {
        RData::CNAME(rdata::CNAME(name(target)))
    }

    fn a(address: &str) -> RData {
        RData::A(rdata::A(address.parse().unwrap()))
    }

    fn with_soa(mut message: Message, ttl: u32, minimum: u32) -> Message {
        let soa = rdata::SOA::new(name("test."), name("test."), 1, 1, 1, 1, minimum);
        message.add_authority(Record::from_rdata(name("test."), ttl, RData::SOA(soa)));
        message
    }

    fn read(message: &Message) -> Result<Answer, Name> {
        Chain::default().follow(Read::of(message, &name("x.test."), RecordType::A))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the other answers of the tables are")]
    fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn records_count_that_belong_to_the_question_and_the_shortest_time_to_live_is_theirs() {
        let answers = [
            ("y.test.", 200, a("192.0.2.1")),
            ("other.test.", 1, a("192.0.2.66")),
            ("X.test.", 100, cname("Y.test.")),
            ("y.test.", 300, a("192.0.2.2")),
            ("y.test.", 300, a("192.0.2.1")),
            ("y.test.", 2, RData::MX(rdata::MX::new(1, name("mx.test.")))),
        ];
        let addresses = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let found = read(&message(ResponseCode::NoError, &answers)).unwrap().unwrap();
        assert_eq!(found.records, Records::Addresses(addresses.into()));
        assert_eq!(found.ttl, Duration::from_secs(100));
    }

    #[test]
    fn a_negative_answer_lasts_as_its_soa_says_and_no_longer_than_the_cnames_before_it() {
        use ResponseCode::{NXDomain, NoError};
        let alias = [("x.test.", 50, cname("y.test."))];
        let table = [
            (with_soa(message(NXDomain, &[]), 900, 60), LookupError::NoSuchName(secs(60))),
            (with_soa(message(NoError, &[]), 30, 60), LookupError::NoRecords(secs(30))),
            (with_soa(message(NXDomain, &alias), 900, 60), LookupError::NoSuchName(secs(50))),
            (with_soa(message(NoError, &alias), 900, 60), LookupError::NoRecords(secs(50))),
            (message(NXDomain, &[]), LookupError::NoSuchName(None)),
            (message(ResponseCode::ServFail, &[]), LookupError::Failed),
            (message(ResponseCode::Refused, &[]), LookupError::Refused),
            (message(ResponseCode::NotImp, &alias), LookupError::Failed),
        ];
        for (message, error) in table {
            assert_eq!(read(&message), Ok(Err(error)), "{message:?}");
        }
    }

    #[test]
    fn a_cname_without_its_target_is_asked_further_and_a_loop_is_a_failure() {
        let chain = [("x.test.", 9, cname("y.test.")), ("y.test.", 7, cname("z.test."))];
        assert_eq!(read(&message(ResponseCode::NoError, &chain)), Err(name("z.test.")));
        let circle = [("x.test.", 9, cname("y.test.")), ("y.test.", 9, cname("x.test."))];
        assert_eq!(read(&message(ResponseCode::NoError, &circle)), Ok(Err(LookupError::Failed)));
        // Over several messages too.
        let step = message(ResponseCode::NoError, &[("x.test.", 9, cname("x.test."))]);
        let mut chain = Chain::default();
        let answers = std::iter::repeat_with(|| {
            let answers = [("x.test.", 9, cname("y.test."))];
            chain.follow(Read::of(&message(ResponseCode::NoError, &answers), &name("x.test."), RecordType::A))
        });
        let steps: Vec<_> = answers.take_while(Result::is_err).take(100).collect();
        assert_eq!(steps.len(), MAX_CHAIN);
        assert_eq!(read(&step), Ok(Err(LookupError::Failed)));
    }

    #[test]
    fn hostile_names_and_times_to_live_are_harmless() {
        let labels: [&[&[u8]]; 5] = [
            &[],
            &[b"a\0b", b"test"],
            &[b"a b", b"test"],
            &[&[b'a'; 63], &[b'a'; 63], &[b'a'; 63], &[b'a'; 61]],
            &[b"_x", b"test"],
        ];
        let mx = |(preference, labels): (u16, &[&[u8]])| {
            let mut exchange = Name::from_labels(labels.iter().copied()).unwrap();
            exchange.set_fqdn(true);
            ("x.test.", u32::MAX, RData::MX(rdata::MX::new(preference, exchange)))
        };
        let answers: Vec<_> = (1..).zip(labels).map(mx).collect();
        let message = message(ResponseCode::NoError, &answers);
        let read = Chain::default().follow(Read::of(&message, &name("x.test."), RecordType::MX));
        let found = read.unwrap().unwrap();
        assert_eq!(found.ttl, Duration::ZERO);
        let longest = [63, 63, 63, 61].map(|length| "a".repeat(length)).join(".");
        assert_eq!(found.records.shown(), ["1 .", "2 (no host name)", &format!("4 {longest}"), "5 _x.test"]);
        assert_eq!(ttl(0x7fff_ffff), Duration::from_secs(0x7fff_ffff));
    }
}
