use std::collections::{HashMap, VecDeque};

use super::{destinations::Destination, ready::Ready};

/// What is ready of one priority: first come first served within a domain, and domains take turns, so that a flood for one
/// of them does not hold up the others in its lane.
///
/// Nearly always there is one domain, which costs no more than a queue.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whose the line is, while there are not several.
    only: Option<Destination>,
    line: VecDeque<Ready>,
    many: Option<Box<Many>>,
}

/// Lines that are not empty.
#[derive(Debug, Default)]
struct Many {
    lines: HashMap<Destination, VecDeque<Ready>>,
    /// Whose turn it is next: each once.
    order: VecDeque<Destination>,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.many.is_none()
    }

    pub(super) fn push_back(&mut self, ready: Ready) {
        self.line(ready.destination).push_back(ready);
    }

    /// It had its turn, and has the next one of its domain.
    pub(super) fn push_front(&mut self, ready: Ready) {
        self.line(ready.destination).push_front(ready);
    }

    pub(super) fn pop_front(&mut self) -> Option<Ready> {
        let Some(many) = &mut self.many else {
            let ready = self.line.pop_front();
            self.tidy();
            return ready;
        };
        let destination = many.order.pop_front()?;
        let line = many.lines.get_mut(&destination)?;
        let ready = line.pop_front();
        if line.is_empty() {
            many.lines.remove(&destination);
        } else {
            many.order.push_back(destination);
        }
        self.tidy();
        ready
    }

    /// Takes out what is ready for a domain.
    pub(super) fn take(&mut self, destination: Destination) -> VecDeque<Ready> {
        let mut taken = VecDeque::new();
        if let Some(many) = &mut self.many {
            if let Some(line) = many.lines.remove(&destination) {
                many.order.retain(|other| *other != destination);
                taken = line;
            }
        } else if self.only == Some(destination) {
            taken = std::mem::take(&mut self.line);
        }
        self.tidy();
        taken
    }

    /// Puts what is ready for a domain behind what there is of it.
    pub(super) fn append(&mut self, destination: Destination, mut ready: VecDeque<Ready>) {
        if !ready.is_empty() {
            self.line(destination).append(&mut ready);
        }
    }

    /// The line of a domain, to put something there.
    fn line(&mut self, destination: Destination) -> &mut VecDeque<Ready> {
        if self.many.is_none() && self.only.is_none_or(|only| only == destination) {
            self.only = Some(destination);
            return &mut self.line;
        }
        let Many { lines, order } = &mut **self.many.get_or_insert_default();
        if let Some(first) = self.only.take() {
            lines.insert(first, std::mem::take(&mut self.line));
            order.push_back(first);
        }
        lines.entry(destination).or_insert_with(|| {
            order.push_back(destination);
            // Where there are many domains, most have one message.
            VecDeque::with_capacity(1)
        })
    }

    /// Memory of a flood is not kept.
    fn tidy(&mut self) {
        if self.line.is_empty() && self.many.as_ref().is_none_or(|many| many.order.is_empty()) {
            *self = Self::default();
        }
    }
}
