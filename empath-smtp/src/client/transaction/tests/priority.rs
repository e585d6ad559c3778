use empath_common::MtPriority;

use super::*;

fn mail(priority: Option<i8>, offered: &str, line: &str) {
    let message = Outgoing {
        mt_priority: priority.and_then(MtPriority::new),
        ..message("<a@home.test>", &["<b@x.test>"], CONTENT)
    };
    play(&message, offers(offered), &format!("C: {line}\n S: 550 no"));
}

#[test]
fn how_urgent_a_message_is_goes_to_hosts_that_want_to_know() {
    mail(Some(9), "SIZE, MT-PRIORITY", "MAIL FROM:<a@home.test> SIZE=22 MT-PRIORITY=9");
    mail(Some(-4), "MT-PRIORITY MIXER", "MAIL FROM:<a@home.test> MT-PRIORITY=-4");
    mail(Some(0), "MT-PRIORITY", "MAIL FROM:<a@home.test> MT-PRIORITY=0");
    mail(None, "MT-PRIORITY", "MAIL FROM:<a@home.test>");
    mail(Some(9), "SIZE", "MAIL FROM:<a@home.test> SIZE=22");
}
