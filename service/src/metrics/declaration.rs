//! The macro that declares families.

#[doc(inline)]
pub use crate::families;

/// Declares a struct of families.
///
/// The doc comment of a field is the family's HELP text, its type says what is counted by which
/// labels, and the name in quotes, after the registry's prefix, is the family's. Histograms name
/// their buckets after `in`.
///
/// ```
/// use service::metrics::{Counters, Histograms, Label, MetricsRegistry, families, labels};
///
/// labels! {
///     /// The side that cut a transfer.
///     pub enum Side: "side" { Client = "client", Upstream = "upstream" }
/// }
/// families! {
///     /// The families of transfers.
///     pub struct Transfers {
///         /// Transfers that were cut, by the side that cut them; counted when they end.
///         pub aborted: Counters<Side> = "transfers_aborted_total",
///         /// How long transfers took; observed when they end.
///         pub duration: Histograms<()> = "transfer_duration_seconds" in [0.1, 1.0, 10.0],
///     }
/// }
/// let registry = MetricsRegistry::new("octoserve_");
/// let transfers = Transfers::declare(&registry);
/// transfers.aborted.inc(Side::Client);
/// ```
///
/// With `by "LABEL"` after the struct's name every family has a first label of that name, whose
/// values are known at run time only; each field is a [`PerValue`](super::PerValue), and `declare`
/// takes the largest number of values.
#[macro_export]
macro_rules! families {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                $field_vis:vis $field:ident: $family:ty = $metric:literal $(in $buckets:expr)?
            ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $(
                $(#[doc = $help])+
                $field_vis $field: $family
            ),+
        }

        impl $name {
            /// Declares the families.
            $vis fn declare(registry: &$crate::metrics::MetricsRegistry) -> Self {
                Self {
                    $(
                        $field: registry.declare(
                            $metric,
                            concat!($($help),+),
                            $crate::families!(@buckets $($buckets)?),
                        )
                    ),+
                }
            }
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident by $label:literal {
            $(
                $(#[doc = $help:literal])+
                $field_vis:vis $field:ident: $family:ty = $metric:literal $(in $buckets:expr)?
            ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $(
                $(#[doc = $help])+
                $field_vis $field: $crate::metrics::PerValue<$family>
            ),+
        }

        impl $name {
            /// Declares the families, for so many values of the first label.
            $vis fn declare(
                registry: &$crate::metrics::MetricsRegistry,
                values: usize,
            ) -> Self {
                Self {
                    $(
                        $field: registry.declare_per_value(
                            ($label, values),
                            $metric,
                            concat!($($help),+),
                            $crate::families!(@buckets $($buckets)?),
                        )
                    ),+
                }
            }

            /// From now on there are at most so many values of the first label.
            #[allow(dead_code, reason = "not all families change")]
            $vis fn resize(&self, values: usize) {
                $(self.$field.resize(values);)+
            }

            /// Removes all series of a value of the first label.
            #[allow(dead_code, reason = "not all families change")]
            $vis fn forget(&self, value: &str) {
                $(self.$field.forget(value);)+
            }
        }
    };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { &$buckets[..] };
}
