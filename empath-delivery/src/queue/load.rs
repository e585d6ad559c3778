use super::ready::Ready;

/// How much is ready in a lane, and how many connections it may have for that: as many as the domain bears that bears the
/// fewest of those whose mail waits.
#[derive(Debug, Default)]
pub(super) struct Load {
    len: usize,
    /// How much is ready by the most connections that it may have: seldom more than one line.
    by_most: Vec<(u16, usize)>,
    /// What held last.
    most: u16,
}

impl Load {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Most connections: while nothing waits, what it was when something did.
    pub(super) fn max_connections(&self) -> usize {
        self.most.into()
    }

    pub(super) fn enter(&mut self, ready: &Ready) {
        self.len += 1;
        match self.by_most.iter_mut().find(|(most, _)| *most == ready.max_connections) {
            Some((_, count)) => *count += 1,
            None => self.by_most.push((ready.max_connections, 1)),
        }
        self.update();
    }

    pub(super) fn leave(&mut self, ready: &Ready) {
        self.len -= 1;
        if let Some((_, count)) = self.by_most.iter_mut().find(|(most, _)| *most == ready.max_connections) {
            *count -= 1;
        }
        self.by_most.retain(|(_, count)| *count > 0);
        self.update();
    }

    fn update(&mut self) {
        if let Some(least) = self.by_most.iter().map(|(most, _)| *most).min() {
            self.most = least;
        }
    }
}
