//! A table of a library's functions, found when a program runs.

/// Makes a struct `Api` of a list of functions: those of `required` refuse a library that lacks
/// them, those of `optional` are options. Types are what the library's headers say; each driver
/// compares them with bindings that are made from the headers.
macro_rules! function_table {
    (
        required { $($must:ident($($a:ident: $at:ty),*) -> $ar:ty;)* }
        optional { $($may:ident($($b:ident: $bt:ty),*) -> $br:ty;)* }
    ) => {
        /// The library's functions, under their own names; those that it may lack as options.
        #[allow(non_snake_case)]
        pub struct Api {
            $(pub $must: unsafe extern "C" fn($($a: $at),*) -> $ar,)*
            $(pub $may: Option<unsafe extern "C" fn($($b: $bt),*) -> $br>,)*
        }

        impl Api {
            /// Looks every function up in an open library, which is never closed again; fails
            /// with the name of a required one that it lacks.
            #[cfg_attr(feature = "link-hip", allow(dead_code))]
            pub fn resolve(library: &'static libloading::Library) -> Result<Api, &'static str> {
                // SAFETY: by the library's contract a function of this name has this type. The
                // library stays.
                unsafe {
                    Ok(Api {
                        $($must: *library
                            .get(concat!(stringify!($must), "\0").as_bytes())
                            .map_err(|_| stringify!($must))?,)*
                        $($may: library
                            .get(concat!(stringify!($may), "\0").as_bytes())
                            .ok()
                            .map(|symbol| *symbol),)*
                    })
                }
            }
        }
    };
}
pub(crate) use function_table;
