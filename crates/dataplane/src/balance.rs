//! Consistent choice: the same key goes to the same endpoint, and a change of the list moves few keys. Tables are made when
//! the list changes, off the workers, and are the same in every process that knows the same endpoints.

/// Points of a ring for each endpoint of weight 1, and where there are many endpoints: the first of the same points.
const POINTS: u64 = 128;
const POINTS_OF_MANY: u64 = 32;
const MANY: usize = 256;
/// Sizes of Maglev's table; primes, so that every stride visits every slot. One is taken that gives each endpoint about a
/// hundred slots, so that shares differ by about a hundredth.
const SIZES: [usize; 5] = [1021, 4093, 16_381, 65_521, 262_139];

/// The same number for the same bytes in every process: FNV-1a, then mixed so that every bit counts.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    mix(fnv)
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// An endpoint as the tables see it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Of what it is, not of where it stands in the list.
    pub key: u64,
    pub weight: u32,
}

/// Which endpoint a key belongs to.
#[derive(Debug)]
pub enum Table {
    /// Points in order with their endpoints.
    Ring(Box<[(u64, u32)]>),
    /// Each slot's endpoint.
    Maglev(Box<[u32]>),
}

impl Table {
    /// Every endpoint has points of its own on a circle; a key belongs to the next point (Karger 1997).
    pub fn ring(entries: &[Entry]) -> Table {
        let each = if entries.len() > MANY { POINTS_OF_MANY } else { POINTS };
        let most = entries.iter().map(|entry| u64::from(entry.weight)).max().unwrap_or(0);
        // Coarse, so that who comes or goes hardly ever changes how many points the others have.
        let scale = (most.next_power_of_two() / 8).max(1);
        let mut points = Vec::new();
        for (index, entry) in (0..).zip(entries) {
            let own = (each * u64::from(entry.weight)).div_ceil(scale);
            points.extend((0..own).map(|n| (mix(entry.key ^ mix(n + 1)), index)));
        }
        points.sort_unstable();
        Table::Ring(points.into_boxed_slice())
    }

    /// Endpoints take turns at filling the table, each in an order of its own (Eisenbud et al. 2016, §3.4).
    pub fn maglev(entries: &[Entry]) -> Table {
        let count = entries.iter().filter(|entry| entry.weight > 0).count();
        let size = SIZES.into_iter().find(|size| *size >= 100 * count).unwrap_or(SIZES[4]);
        let most = entries.iter().map(|entry| entry.weight).max().unwrap_or(0);
        if most == 0 {
            return Table::Maglev(Box::default());
        }
        // In an order of their keys, so that the list's own order does not matter.
        let mut order: Vec<usize> = (0..entries.len()).filter(|index| entries[*index].weight > 0).collect();
        order.sort_by_key(|index| entries[*index].key);
        let mut cursors: Vec<(usize, usize, f64)> = order
            .iter()
            .map(|index| {
                let key = entries[*index].key;
                let offset = (mix(key ^ 0x6d61) % size as u64) as usize;
                let stride = (mix(key ^ 0x676c) % (size as u64 - 1)) as usize + 1;
                (offset, stride, 0.0)
            })
            .collect();
        let mut slots = vec![u32::MAX; size];
        let mut filled = 0;
        while filled < size {
            for (index, (at, stride, credit)) in order.iter().zip(&mut cursors) {
                // The heaviest has a turn each round, the others as often as their weight allows.
                *credit += f64::from(entries[*index].weight) / f64::from(most);
                if *credit < 1.0 {
                    continue;
                }
                *credit -= 1.0;
                while slots[*at] != u32::MAX {
                    *at = (*at + *stride) % size;
                }
                slots[*at] = *index as u32;
                filled += 1;
                if filled == size {
                    break;
                }
            }
        }
        Table::Maglev(slots.into_boxed_slice())
    }

    /// Endpoints in the order in which the key asks for them; the same one may come again.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let (start, length) = match self {
            Table::Ring(points) => {
                let start = points.partition_point(|(at, _)| *at < key);
                (start, points.len())
            }
            Table::Maglev(slots) => ((key % slots.len().max(1) as u64) as usize, slots.len()),
        };
        (0..length).map(move |step| {
            let at = (start + step) % length;
            match self {
                Table::Ring(points) => points[at].1 as usize,
                Table::Maglev(slots) => slots[at] as usize,
            }
        })
    }
}

/// A few of many, the same for the same `who`: each candidate has a rank that depends on both, the highest are taken
/// (rendezvous, Thaler and Ravishankar 1998). Who leaves or comes changes one place at most. The answer is in the list's
/// order.
pub fn subset(candidates: &[u64], who: u64, size: usize) -> Vec<usize> {
    let mut ranked: Vec<usize> = (0..candidates.len()).collect();
    if size == 0 || size >= ranked.len() {
        return ranked;
    }
    ranked.sort_by_key(|index| std::cmp::Reverse((mix(candidates[*index] ^ mix(who)), *index)));
    ranked.truncate(size);
    ranked.sort_unstable();
    ranked
}

/// Of requests, in hundredths, how many stay near: all as long as `good` of `total` are at least `enough` of a hundred, and
/// below that in proportion.
pub fn near_share(good: usize, total: usize, enough: u32) -> u32 {
    if total == 0 || good == 0 {
        return 0;
    }
    let enough = u64::from(enough.clamp(1, 100));
    u32::try_from((good as u64 * 10_000 / (total as u64 * enough)).min(100)).unwrap_or(100)
}

/// How much of its weight an endpoint has that began to serve `age` ago: it grows with time, from a tenth.
pub fn warmth(age: u64, window: u64) -> f64 {
    if window == 0 || age >= window { 1.0 } else { (age as f64 / window as f64).max(0.1) }
}

#[cfg(test)]
mod tests;
