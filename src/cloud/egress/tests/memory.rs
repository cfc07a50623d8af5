//! The client over pipes, in virtual time.

use tokio::io::AsyncWriteExt;
use tokio::time;

use super::servers::{answer_all, read_head};
use super::*;
use crate::cloud::egress::memory::Network;

const CLOUD: &str = "https://cloud.example/v1";

fn in_memory(network: &Network, uri: &str) -> (Egress, Way) {
    let mut egress = Egress::builder_in_memory(network.clone());
    let way = egress.row(&row(uri)).unwrap();
    (egress.build(), way)
}

#[tokio::test(start_paused = true)]
async fn pipes_carry_requests_and_connections_are_used_again() {
    let network = Network::default();
    let mut cloud = network.listen(CLOUD);
    let (egress, way) = in_memory(&network, CLOUD);
    let serving = tokio::spawn(async move {
        let mut stream = cloud.accept().await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        answer_all(stream, OK).await;
        head
    });
    for _ in 0..3 {
        let (head, body) = egress.call(get(CLOUD), way, 100, Duration::from_secs(5)).await.unwrap();
        assert_eq!((head.status.as_u16(), &body[..]), (200, &b"ok"[..]));
    }
    drop(egress);
    let head = serving.await.unwrap();
    assert!(head.starts_with("GET /v1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: cloud.example\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn waiting_costs_no_time() {
    let network = Network::default();
    network.silence(CLOUD);
    let (egress, way) = in_memory(&network, CLOUD);
    let (real, virtually) = (Instant::now(), time::Instant::now());
    let hour = Duration::from_secs(3600);
    let refused = egress.call(get(CLOUD), way, 100, hour).await.unwrap_err();
    assert!(chain(&refused).contains("no connection within 500ms"), "{}", chain(&refused));
    assert_eq!(virtually.elapsed(), Duration::from_millis(500));

    let _cloud = network.listen(CLOUD);
    let refused = egress.call(get(CLOUD), way, 100, hour).await.unwrap_err();
    assert!(matches!(refused, CallError::Timeout(_)), "{refused}");
    assert!(real.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn only_listeners_answer() {
    let network = Network::default();
    let (egress, way) = in_memory(&network, CLOUD);
    let call = || egress.call(get(CLOUD), way, 100, Duration::from_secs(5));
    assert!(chain(&call().await.unwrap_err()).contains("refused"));
    drop(network.listen(CLOUD));
    assert!(chain(&call().await.unwrap_err()).contains("refused"));
    let other = egress.call(get("https://other.example"), way, 100, Duration::from_secs(5)).await;
    assert!(chain(&other.unwrap_err()).contains("not the origin"));
}

#[tokio::test(start_paused = true)]
async fn metadata_services_can_be_played() {
    let network = Network::default();
    let uri: Uri = "http://169.254.169.254/latest/api/token".parse().unwrap();
    let mut service = network.listen(&uri.to_string());
    let mut egress = Egress::builder_in_memory(network);
    let way = egress.allow_metadata(&uri, Duration::from_secs(1)).unwrap();
    let egress = egress.build();
    let serving = tokio::spawn(async move {
        answer_all(service.accept().await.unwrap(), OK).await;
    });
    let answer = egress.call(get(&uri.to_string()), way, 100, Duration::from_secs(1)).await;
    assert_eq!(answer.unwrap().1, "ok");
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_call_is_bounded_in_bytes_and_time() {
    let answers = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n", "longer than 100 bytes"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "no answer within 5s"),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n", "compressed"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n", "broke off"),
        ("nonsense\r\n\r\n", "no connection, or none that lasts"),
        ("", "no answer within 5s"),
    ];
    for (head, meaning) in answers {
        let network = Network::default();
        let mut cloud = network.listen(CLOUD);
        let (egress, way) = in_memory(&network, CLOUD);
        let body = if head.contains("length: 101") { "a".repeat(101) } else { String::new() };
        let answer = format!("{head}{body}");
        let serving = tokio::spawn(async move {
            answer_all(cloud.accept().await.unwrap(), &answer).await;
        });
        let call = egress.call(get(CLOUD), way, 100, Duration::from_secs(5));
        let refused = chain(&call.await.unwrap_err());
        assert!(refused.contains(meaning), "{head}: {refused}");
        serving.abort();
    }
}
