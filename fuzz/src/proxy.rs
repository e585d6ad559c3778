use empath_smtp::server::Header;

/// A PROXY header ends where it ends however few octets were there before, and reading what is asked for never takes
/// more than the header.
pub fn proxy(data: &[u8]) {
    let Ok(Header::Whole(origin, end)) = Header::parse(data) else {
        return;
    };
    assert!(end <= data.len());
    let mut read = 0;
    loop {
        match Header::parse(&data[..read]).expect("the start of a header") {
            Header::Whole(again, len) => {
                assert_eq!((again, len, read), (origin, end, end));
                return;
            }
            Header::Partial(more) => {
                assert!(more > 0 && read + more <= end, "{read} and {more} of {end}");
                read += more;
            }
        }
    }
}
