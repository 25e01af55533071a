//! Connections and exchanges by number. A number that is used again has another generation, so that an event or a timer meant for the
//! connection before never reaches the one after.

/// Which kind of thing a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Listener = 0,
    Down = 1,
    Up = 2,
    Exchange = 3,
    Waker = 4,
}

const GENERATIONS: u32 = 0x1fff_ffff;

/// What epoll and the timers carry: kind, generation, number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    pub const fn new(kind: Kind, generation: u32, index: u32) -> Token {
        Token((kind as u64) << 61 | ((generation & GENERATIONS) as u64) << 32 | index as u64)
    }
    pub const fn kind(self) -> Kind {
        match self.0 >> 61 {
            0 => Kind::Listener,
            1 => Kind::Down,
            2 => Kind::Up,
            3 => Kind::Exchange,
            _ => Kind::Waker,
        }
    }
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATIONS
    }
    pub const fn index(self) -> u32 {
        self.0 as u32
    }
}

#[derive(Debug)]
pub struct Slab<T> {
    kind: Kind,
    entries: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub const fn new(kind: Kind) -> Slab<T> {
        Slab { kind, entries: Vec::new(), free: Vec::new() }
    }

    /// The token the next insertion will have.
    pub fn next(&self) -> Token {
        let index = self.free.last().copied().unwrap_or(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        let generation = self.entries.get(index as usize).map_or(0, |entry| entry.0);
        Token::new(self.kind, generation, index)
    }

    pub fn insert(&mut self, value: Box<T>) -> Token {
        let token = self.next();
        match self.free.pop() {
            Some(index) => self.entries[index as usize].1 = Some(value),
            None => self.entries.push((0, Some(value))),
        }
        token
    }

    /// The number's owner, if it is still the one the token was made for.
    pub fn find(&self, token: Token) -> Option<u32> {
        let entry = self.entries.get(token.index() as usize)?;
        (entry.1.is_some() && entry.0 & GENERATIONS == token.generation()).then_some(token.index())
    }

    pub fn token(&self, index: u32) -> Token {
        Token::new(self.kind, self.entries[index as usize].0, index)
    }

    pub fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.1.as_deref()
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.1.as_deref_mut()
    }

    pub fn remove(&mut self, index: u32) -> Option<Box<T>> {
        let entry = self.entries.get_mut(index as usize)?;
        let value = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers in use.
    pub fn indices(&self) -> Vec<u32> {
        let used = self.entries.iter().enumerate().filter(|(_, entry)| entry.1.is_some());
        used.map(|(index, _)| u32::try_from(index).unwrap_or(u32::MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_the_one_before_finds_nothing() {
        let mut slab = Slab::new(Kind::Up);
        let first = slab.insert(Box::new("a"));
        assert_eq!((first.kind(), slab.find(first)), (Kind::Up, Some(0)));
        slab.remove(0);
        let second = slab.insert(Box::new("b"));
        assert_eq!((slab.find(first), slab.find(second), second.index()), (None, Some(0), 0));
        assert_eq!(slab.len(), 1);
    }
}
