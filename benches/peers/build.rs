//! The gRPC service of the tonic peer, described here: no protoc is needed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "remote")]
    service();
}

#[cfg(feature = "remote")]
fn service() {
    use tonic_build::manual::{Builder, Method, Service};
    let method = |name: &str, route: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::remote::tonic_peer::Payload")
            .output_type(output)
            .codec_path("tonic_prost::ProstCodec")
    };
    let ask = method("ask", "Ask", "crate::remote::tonic_peer::Payload").build();
    let tell = method("tell", "Tell", "crate::remote::tonic_peer::Seen").client_streaming().build();
    Builder::new().compile(&[Service::builder().name("Echo").package("bench").method(ask).method(tell).build()]);
}
