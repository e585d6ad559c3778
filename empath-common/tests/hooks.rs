//! The seam between protocol and policy: the first refusal decides, metadata is kept, nonsense is 451.
#![expect(clippy::unwrap_used, reason = "what does not parse fails the test")]

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use empath_common::{Answer, Asked, Client, Hook, Hooks, Metadata, Query, Reply, Verdict};

/// Answers always the same, at once or one poll later, and counts.
struct Fixed {
    answer: Answer,
    later: bool,
    asked: AtomicUsize,
}

impl Hook for Fixed {
    fn ask<'a>(&'a self, _: Query<'a>) -> Asked<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if !self.later {
            return Asked::Now(self.answer.clone());
        }
        let mut waited = false;
        Asked::Later(Box::pin(std::future::poll_fn(move |context| {
            if waited {
                return Poll::Ready(self.answer.clone());
            }
            waited = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })))
    }
}

fn fixed(verdict: Verdict, metadata: &[(&str, &str)], later: bool) -> Arc<Fixed> {
    let mut answer = Answer::from(verdict);
    for (name, value) in metadata {
        answer.metadata.insert((*name).to_owned(), (*value).to_owned()).unwrap();
    }
    Arc::new(Fixed { answer, later, asked: AtomicUsize::new(0) })
}

fn ask(hooks: &[Arc<Fixed>]) -> Answer {
    let client = Client::new("192.0.2.1:40000".parse().unwrap(), "192.0.2.2:25".parse().unwrap());
    let hooks = Hooks::new(hooks.iter().map(|hook| Arc::clone(hook) as Arc<dyn Hook>).collect());
    let mut answer = pin!(hooks.ask(Query::Connect(&client)));
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut context) {
            return answer;
        }
    }
}

const REFUSED: Reply = Reply::new(550, (5, 7, 1), "no");

#[test]
fn without_hooks_everything_is_accepted() {
    assert_eq!(ask(&[]), Verdict::Accept.into());
}

#[test]
fn the_first_refusal_decides_and_the_rest_is_not_asked() {
    for later in [false, true] {
        let hooks = [
            fixed(Verdict::Accept, &[], later),
            fixed(Verdict::Refuse(REFUSED), &[], later),
            fixed(Verdict::Refuse(Reply::new(450, (4, 7, 1), "later")), &[], later),
        ];
        assert_eq!(ask(&hooks).verdict, Verdict::Refuse(REFUSED));
        let asked = hooks.map(|hook| hook.asked.load(Ordering::Relaxed));
        assert_eq!(asked, [1, 1, 0]);
    }
}

#[test]
fn metadata_of_all_that_were_asked_is_kept_and_the_last_value_wins() {
    let hooks = [
        fixed(Verdict::Accept, &[("score", "1"), ("list", "friends")], false),
        fixed(Verdict::Accept, &[("score", "2")], true),
        fixed(Verdict::Refuse(REFUSED), &[("by", "third")], false),
    ];
    let stored: Vec<(String, String)> =
        ask(&hooks).metadata.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let expected = [("by", "third"), ("list", "friends"), ("score", "2")];
    assert_eq!(stored, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[test]
fn a_refusal_with_a_code_that_is_none_is_451() {
    for code in [200, 250, 299, 354] {
        let Verdict::Refuse(reply) =
            ask(&[fixed(Verdict::Refuse(Reply::plain(code, "ok")), &[], false)]).verdict
        else {
            panic!("{code} was taken for acceptance")
        };
        assert_eq!(reply.to_string(), "451 4.3.0 Local error in processing");
    }
}

#[test]
fn more_metadata_than_fits_is_451_unless_the_hook_refuses_anyway() {
    let half = "x".repeat(Metadata::MAX_OCTETS / 2);
    let first = fixed(Verdict::Accept, &[("a", &half)], false);
    let Verdict::Refuse(reply) =
        ask(&[first.clone(), fixed(Verdict::Accept, &[("b", &half)], false)]).verdict
    else {
        panic!("too much metadata was accepted")
    };
    assert_eq!((reply.code.get(), reply.enhanced.unwrap().to_string().as_str()), (451, "4.3.0"));
    let refuses = fixed(Verdict::Refuse(REFUSED), &[("b", &half)], false);
    assert_eq!(ask(&[first, refuses]).verdict, Verdict::Refuse(REFUSED));
}
