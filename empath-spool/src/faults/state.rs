//! What is on the disk: directories, files, space.

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    path::{Component, Path},
};

use fastrand::Rng;
use rustix::io::Errno;

use super::{
    content::{Content, SECTOR},
    fate::Fates,
    names::{Inode, Name, Names},
};

#[derive(Debug)]
pub(super) struct State {
    pub(super) fates: Fates,
    pub(super) names: Names,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) locked: Vec<Inode>,
    /// Sectors that cannot be read until they are written again or the disk is mended.
    pub(super) bad: BTreeSet<(Inode, usize)>,
    /// Octets and inodes that there are.
    pub(super) octets: usize,
    pub(super) inodes: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// `None` for a directory.
    pub(super) content: Option<Content>,
    named: bool,
    pub(super) opened: usize,
}

const ROOT: Inode = 0;

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            fates: Fates::new(seed),
            names: Names::default(),
            nodes: vec![Some(Node { content: None, named: true, opened: 0 })],
            locked: Vec::new(),
            bad: BTreeSet::new(),
            octets: usize::MAX,
            inodes: usize::MAX,
        }
    }

    /// The disk for another process: nothing is open, but what was removed may still come back.
    pub(super) fn kill(&self) -> Self {
        let nodes = self.nodes.iter().map(|node| node.clone().map(|node| Node { opened: 0, ..node }));
        Self { nodes: nodes.collect(), ..self.restart() }
    }

    /// The disk after a power failure, with the files that still have a name.
    pub(super) fn power_loss(&self, rng: &mut Rng) -> Self {
        let names = self.names.lose(rng);
        let mut nodes = vec![None; self.nodes.len()];
        let mut reached = vec![ROOT];
        while let Some(inode) = reached.pop() {
            let content = self.content(inode).map(|content| content.lose(rng));
            nodes[inode] = Some(Node { content, named: true, opened: 0 });
            reached.extend(names.list(inode).map(|(_, inode)| inode));
        }
        Self { names, nodes, ..self.restart() }
    }

    fn restart(&self) -> Self {
        let (octets, inodes) = (self.octets, self.inodes);
        let (fates, names) = (self.fates.after(), self.names.clone());
        Self { fates, names, nodes: Vec::new(), locked: Vec::new(), bad: self.bad.clone(), octets, inodes }
    }

    /// The bad sectors of a file among some octets.
    pub(super) fn bad(&self, inode: Inode, octets: Range<usize>) -> Vec<(Inode, usize)> {
        let sectors = octets.start / SECTOR..octets.end.div_ceil(SECTOR);
        self.bad.range((inode, sectors.start)..(inode, sectors.end)).copied().collect()
    }

    pub(super) fn content(&self, inode: Inode) -> Option<&Content> {
        self.nodes[inode].as_ref()?.content.as_ref()
    }

    pub(super) fn content_mut(&mut self, inode: Inode) -> io::Result<&mut Content> {
        let content = self.nodes[inode].as_mut().and_then(|node| node.content.as_mut());
        content.ok_or_else(|| Errno::ISDIR.into())
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut inode = ROOT;
        for part in path.components() {
            match part {
                Component::Normal(part) => {
                    let name = (inode, part.to_string_lossy().into_owned());
                    inode = self.names.find(&name).ok_or(Errno::NOENT)?;
                }
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL.into()),
            }
        }
        Ok(inode)
    }

    fn name(&self, path: &Path) -> io::Result<Name> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_string_lossy().into_owned();
        let directory = self.find(path.parent().ok_or(Errno::INVAL)?)?;
        if self.content(directory).is_some() { Err(Errno::NOTDIR.into()) } else { Ok((directory, name)) }
    }

    pub(super) fn create(&mut self, path: &Path, content: Option<Content>) -> io::Result<Inode> {
        let name = self.name(path)?;
        if self.names.find(&name).is_some() {
            return Err(Errno::EXIST.into());
        }
        if self.used().1 >= self.inodes {
            return Err(Errno::NOSPC.into());
        }
        let inode = self.nodes.len();
        self.nodes.push(Some(Node { content, named: true, opened: 0 }));
        self.names.change(vec![(name, Some(inode))]);
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.name(from)?, self.name(to)?);
        let inode = self.names.find(&from).ok_or(Errno::NOENT)?;
        if from != to {
            if let Some(replaced) = self.names.find(&to) {
                self.unname(replaced)?;
            }
            self.names.change(vec![(to, Some(inode)), (from, None)]);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let name = self.name(path)?;
        self.unname(self.names.find(&name).ok_or(Errno::NOENT)?)?;
        self.names.change(vec![(name, None)]);
        Ok(())
    }

    fn unname(&mut self, inode: Inode) -> io::Result<()> {
        self.content_mut(inode)?;
        if let Some(node) = &mut self.nodes[inode] {
            node.named = false;
        }
        Ok(())
    }

    /// Octets and inodes in use: a file without a name is there until it is closed.
    pub(super) fn used(&self) -> (usize, usize) {
        let nodes = self.nodes.iter().flatten().filter(|node| node.named || node.opened > 0);
        nodes.fold((0, 0), |(octets, inodes), node| {
            (octets + node.content.as_ref().map_or(0, Content::space), inodes + 1)
        })
    }

    /// Octets up to which a file may grow.
    pub(super) fn most(&self, inode: Inode) -> usize {
        if self.octets == usize::MAX {
            return usize::MAX;
        }
        self.content(inode).map_or(0, Content::space) + self.octets.saturating_sub(self.used().0)
    }
}
