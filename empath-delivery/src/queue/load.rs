use super::ready::Ready;

/// How much may start in a lane, and how many connections it may have for that: as many as the domain bears that bears the
/// fewest of those whose mail waits for one.
#[derive(Debug, Default)]
pub(super) struct Load {
    len: usize,
    /// How much there is by the most connections that it may have: seldom more than one line.
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
        self.add(ready.max_connections, 1);
    }

    pub(super) fn leave(&mut self, ready: &Ready) {
        self.subtract(ready.max_connections, 1);
    }

    /// All that a domain has may start.
    pub(super) fn join(&mut self, domain: &Self) {
        domain.by_most.iter().for_each(|(most, count)| self.add(*most, *count));
    }

    /// Nothing that a domain has may start.
    pub(super) fn part(&mut self, domain: &Self) {
        domain.by_most.iter().for_each(|(most, count)| self.subtract(*most, *count));
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self) {
        *self = Self { most: self.most, ..Self::default() };
    }

    fn add(&mut self, max_connections: u16, number: usize) {
        self.len += number;
        match self.by_most.iter_mut().find(|(most, _)| *most == max_connections) {
            Some((_, count)) => *count += number,
            None => self.by_most.push((max_connections, number)),
        }
        self.update();
    }

    fn subtract(&mut self, max_connections: u16, number: usize) {
        self.len -= number;
        if let Some((_, count)) = self.by_most.iter_mut().find(|(most, _)| *most == max_connections) {
            *count -= number;
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
