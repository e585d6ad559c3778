use std::slice;

/// Values of which there is mostly one, which then needs no allocation of its own.
#[derive(Debug)]
pub(super) enum Few<T> {
    One(T),
    Many(Box<[T]>),
}

impl<T> Few<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => slice::from_mut(one),
            Self::Many(many) => many,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (Some(one), None) => Self::One(one),
            (first, second) => Self::Many(first.into_iter().chain(second).chain(values).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_values_comes_back_in_its_order() {
        for n in 0..4 {
            let mut few: Few<u8> = (0..n).collect();
            assert_eq!(few.as_slice(), (0..n).collect::<Vec<_>>());
            assert_eq!(matches!(few, Few::One(_)), n == 1);
            few.as_mut_slice().iter_mut().for_each(|value| *value += 1);
            assert_eq!(few.as_slice(), (1..=n).collect::<Vec<_>>());
        }
    }
}
