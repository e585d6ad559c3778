use std::{fs, io, path::Path};

use crate::{
    script::{Script, Step},
    session::ESCAPE,
};

/// Writes every dialogue of the server's tests to `corpus/session`, as an input for the session.
pub fn seeds(fuzz: &Path) -> io::Result<()> {
    let corpus = fuzz.join("corpus/session");
    fs::create_dir_all(&corpus)?;
    for entry in fs::read_dir(fuzz.join("../empath-smtp/tests/dialogues"))? {
        let path = entry?.path();
        let script = Script::parse(&fs::read_to_string(&path)?);
        let config = &script.config;
        let flags = u8::from(!config.tls.is_empty())
            | u8::from(config.auth.users_file.is_some()) << 2
            | u8::from(config.auth.require_tls) << 3
            | u8::from(config.listeners.first().is_some_and(|listener| listener.mode.is_submission())) << 4
            | u8::from(script.peer.to_string().starts_with("198.51.100.")) << 5;
        let mut seed = vec![flags];
        for step in &script.steps {
            match step {
                Step::Send(octets) if octets.len() < 4096 => seed.extend(octets),
                Step::Send(_) | Step::Line(_) | Step::Lines(_) => {}
                Step::Eof => seed.extend([ESCAPE, b'e']),
                Step::Timeout => seed.extend([ESCAPE, b't']),
                Step::Shutdown => seed.extend([ESCAPE, b'd']),
                Step::StartTls => seed.extend([ESCAPE, b'h']),
            }
        }
        fs::write(corpus.join(path.file_stem().unwrap_or_default()), seed)?;
    }
    Ok(())
}
