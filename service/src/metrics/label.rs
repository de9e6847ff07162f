//! Labels whose values are closed sets: an index for the cells, a text for the exposition.

#[doc(inline)]
pub use crate::labels;

/// A label whose values are a closed set.
pub trait Label: Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;

    /// Every value, such that `ALL[x.index()]` is `x`.
    const ALL: &'static [Self];

    /// The value's index in [`Label::ALL`].
    fn index(self) -> usize;

    /// The value as it is printed.
    fn value(self) -> &'static str;
}

/// A combination of label values: a [`Label`], a tuple of sets, or a type of the caller's that
/// admits only some combinations.
pub trait LabelSet: Copy + Send + Sync + 'static {
    /// How many combinations there are.
    const COUNT: usize;
    /// The only combination, where there are no labels.
    const UNLABELLED: Option<Self> = None;

    /// Appends the names of the labels.
    fn names(names: &mut Vec<&'static str>);

    /// This combination's own number, less than `COUNT`.
    fn index(self) -> usize;

    /// Appends this combination's values, in the order of the names.
    fn values(self, values: &mut Vec<&'static str>);
}

impl<L: Label> LabelSet for L {
    const COUNT: usize = L::ALL.len();

    fn names(names: &mut Vec<&'static str>) {
        names.push(L::NAME);
    }

    #[inline]
    fn index(self) -> usize {
        Label::index(self)
    }

    fn values(self, values: &mut Vec<&'static str>) {
        values.push(self.value());
    }
}

impl LabelSet for () {
    // One and not 0: a family without labels still has a cell.
    const COUNT: usize = 1;
    const UNLABELLED: Option<Self> = Some(());

    fn names(_: &mut Vec<&'static str>) {}

    #[inline]
    fn index(self) -> usize {
        0
    }

    fn values(self, _: &mut Vec<&'static str>) {}
}

macro_rules! tuple_of_sets {
    ($($set:ident $field:tt),*) => {
        impl<$($set: LabelSet),*> LabelSet for ($($set,)*) {
            const COUNT: usize = 1 $(* $set::COUNT)*;

            fn names(names: &mut Vec<&'static str>) {
                $($set::names(names);)*
            }

            #[inline]
            fn index(self) -> usize {
                // Digits of a number in a mixed base: no number is skipped, and none comes twice.
                let index = 0;
                $(let index = index * $set::COUNT + self.$field.index();)*
                index
            }

            fn values(self, values: &mut Vec<&'static str>) {
                $(self.$field.values(values);)*
            }
        }
    };
}

tuple_of_sets!(A 0, B 1);
tuple_of_sets!(A 0, B 1, C 2);
tuple_of_sets!(A 0, B 1, C 2, D 3);

/// Declares enums whose variants are the values of a metric label, which has the name in quotes.
///
/// ```
/// service::labels! {
///     /// The side that cut a transfer.
///     pub enum Side: "side" { Client = "client", Upstream = "upstream" }
/// }
/// use service::metrics::Label;
/// assert_eq!(Side::NAME, "side");
/// assert_eq!(Side::Upstream.value(), "upstream");
/// assert_eq!(Side::ALL, [Side::Client, Side::Upstream]);
/// ```
#[macro_export]
macro_rules! labels {
    ($($(#[$meta:meta])* $vis:vis enum $name:ident: $label:literal {
        $($(#[$variant_meta:meta])* $variant:ident = $value:literal),+ $(,)?
    })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name {
            $(
                $(#[$variant_meta])*
                #[doc = concat!("Printed as `", $value, "`.")]
                $variant
            ),+
        }

        impl $crate::metrics::Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[inline]
            fn index(self) -> usize {
                // Variants are numbered in the order of `ALL`.
                self as usize
            }

            #[inline]
            fn value(self) -> &'static str {
                match self {
                    $(Self::$variant => $value),+
                }
            }
        }
    )+};
}
