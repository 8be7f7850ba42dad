//! The roles against each other, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use mesh_shop::{load, orders, prices, stock, watch, web};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const ANY: &str = "127.0.0.1:0";

#[expect(clippy::disallowed_methods, reason = "the test awaits every task it starts")]
async fn start_stock(stop: &CancellationToken) -> (SocketAddr, JoinHandle<anyhow::Result<()>>) {
    let stock = stock::Stock::bind(stock::Args { listen: ANY.parse().unwrap() }).await.unwrap();
    (stock.addr, tokio::spawn(stock.run(stop.clone())))
}

#[expect(clippy::disallowed_methods, reason = "the test awaits every task it starts")]
async fn start_web(
    version: &str,
    behind: [SocketAddr; 3],
    stop: &CancellationToken,
) -> (SocketAddr, JoinHandle<anyhow::Result<()>>) {
    let [stock, prices, orders] = behind.map(|address| address.to_string());
    let args = web::Args {
        version: version.into(),
        listen: ANY.parse().unwrap(),
        stock,
        prices,
        orders,
        name: "web-test".into(),
    };
    let web = web::Web::bind(args).await.unwrap();
    (web.addr, tokio::spawn(web.run(stop.clone())))
}

#[expect(clippy::disallowed_methods, reason = "the test awaits every task it starts")]
async fn start_prices(stop: &CancellationToken) -> (SocketAddr, JoinHandle<anyhow::Result<()>>) {
    let prices = prices::Prices::bind(prices::Args { listen: ANY.parse().unwrap() }).await.unwrap();
    (prices.addr, tokio::spawn(prices.run(stop.clone())))
}

#[expect(clippy::disallowed_methods, reason = "the test awaits every task it starts")]
async fn start_orders(stop: &CancellationToken) -> (SocketAddr, JoinHandle<anyhow::Result<()>>) {
    let orders = orders::Orders::bind(orders::Args { listen: ANY.parse().unwrap() }).await.unwrap();
    (orders.addr, tokio::spawn(orders.run(stop.clone())))
}

/// One answer on a connection of its own.
async fn ask(address: SocketAddr, request_line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request_line} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn stock_speaks_first_and_ends_with_its_client() {
    let stop = CancellationToken::new();
    let (addr, task) = start_stock(&stop).await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut greeting = [0; 17];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 stock ready\r\n");
    stream.write_all(b"QTY 3\r\nQTY x\r\nNONSENSE\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "200 21\r\n501 QTY wants a number\r\n500 commands are QTY and QUIT\r\n");
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn only_version_two_has_the_planted_fault() {
    let stop = CancellationToken::new();
    let (stock, stock_task) = start_stock(&stop).await;
    let (prices, prices_task) = start_prices(&stop).await;
    let (orders, orders_task) = start_orders(&stop).await;
    for (version, is_broken) in [("v1", false), ("v2", true)] {
        let (web, web_task) = start_web(version, [stock, prices, orders], &stop).await;
        let args = load::Args { url: format!("http://{web}/").parse().unwrap(), rate: 1000, count: Some(100) };
        let tally = load::tally(args, CancellationToken::new()).await.unwrap();
        let expected = (0..100).filter(|&number| {
            let (_, path) = load::request(number);
            path.strip_prefix("/checkout?item=").is_some_and(|item| web::is_faulty(version, item.parse().unwrap()))
        });
        assert_eq!(expected.count() as u64, tally.failed, "{version}");
        assert_eq!((tally.failed > 0, tally.unanswered), (is_broken, 0), "{version}");
        web_task.abort();
    }
    // Every checkout that succeeded is an order: 40 of a hundred requests, all of v1 and most of v2.
    let counted = ask(orders, "GET /orders").await;
    let failed = (0..100).map(load::request).filter_map(|(_, path)| path.strip_prefix("/checkout?item=")?.parse().ok());
    let failed = failed.filter(|item| web::is_faulty("v2", *item)).count();
    assert!(counted.ends_with(&format!("{{\"orders\":{}}}\n", 80 - failed)), "{counted}");
    stop.cancel();
    for task in [stock_task, prices_task, orders_task] {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_item_has_the_price_that_the_grpc_service_says() {
    let stop = CancellationToken::new();
    let (prices, task) = start_prices(&stop).await;
    let (web, web_task) = start_web("v1", [prices; 3], &stop).await;
    let found = ask(web, "GET /items/7").await;
    assert!(found.starts_with("HTTP/1.1 200") && found.contains(&format!("\"price\":{}", prices::price(7))), "{found}");
    let unknown = ask(web, "GET /items/123456789").await;
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
    stop.cancel();
    web_task.await.unwrap().unwrap();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shop_without_stock_answers_502_and_says_why() {
    let stop = CancellationToken::new();
    let closed = std::net::TcpListener::bind(ANY).unwrap().local_addr().unwrap();
    let (web, task) = start_web("v1", [closed; 3], &stop).await;
    let answer = ask(web, "POST /checkout?item=1").await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("connect to stock"), "{answer}");
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test awaits every task it starts")]
async fn one_who_watches_says_when_the_answer_is_another_one() {
    let stop = CancellationToken::new();
    let (orders, orders_task) = start_orders(&stop).await;
    let args = watch::Args { url: format!("http://{orders}/orders").parse().unwrap(), every: 1 };
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(watch::changes(args, stop.clone(), move |line| say.send(line).unwrap()));
    let first = said.recv().await.unwrap();
    assert!(first.ends_with(" 200 {\"orders\":0}"), "{first}");
    let ordered = ask(orders, "POST /orders?item=1").await;
    let second = said.recv().await.unwrap();
    assert!(second.ends_with(" 200 {\"orders\":1}"), "{second} after {ordered}");
    let time = |line: &str| line.split_once(' ').unwrap().0.parse::<f64>().unwrap();
    assert!(time(&first) < time(&second), "{first} {second}");
    stop.cancel();
    task.await.unwrap();
    orders_task.await.unwrap().unwrap();
}
