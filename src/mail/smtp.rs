//! Takes mail to an SMTP server. Keeps nothing: what fails goes back to the queue.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, SinglePart};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::outbox::{SendError, Transport};
use super::{Config, Message};
use crate::credentials::Secret;

/// A mail server, reached by its URL.
pub struct Smtp {
    from: Address,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

/// Why no mail could ever leave. Never says the URL, which holds a password.
#[derive(Debug, thiserror::Error)]
pub enum BadSmtp {
    /// The URL is none that we can use.
    #[error(
        "the URL of the mail server is not one: write `smtps://user:password@host:465`, `smtp://host:587?tls=required`, or `smtp://host:25` for a relay of your own network"
    )]
    Url,
    /// The sender's address is none.
    #[error("platform.mail.from: `{0}` is not an email address")]
    From(String),
}

impl Smtp {
    /// A mail server at `smtps://user:password@host:465`, at `smtp://host:587?tls=required`, or at
    /// `smtp://host:25` without encryption. No connection is made yet.
    ///
    /// # Errors
    /// When the URL or the sender's address makes no sense.
    pub fn new(config: &Config, url: &Secret) -> Result<Self, BadSmtp> {
        let from = config.from.parse();
        let from = from.map_err(|_| BadSmtp::From(config.from.clone()))?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose())
            .map_err(|_| BadSmtp::Url)?
            .timeout(Some(TIMEOUT))
            .build();
        Ok(Self { from, transport })
    }

    fn build(&self, message: &Message) -> Result<lettre::Message, SendError> {
        let refused = |why: &str| SendError::Refused(why.to_owned());
        message
            .check()
            .map_err(|error| refused(&error.to_string()))?;
        let to = message.to.parse().map_err(|_| refused("a bad address"))?;
        let from_name = Some(message.from_name.clone()).filter(|name| !name.is_empty());
        lettre::Message::builder()
            .from(Mailbox::new(from_name, self.from.clone()))
            .to(Mailbox::new(None, to))
            .subject(message.subject.clone())
            .singlepart(
                SinglePart::builder()
                    .header(ContentType::TEXT_PLAIN)
                    .body(message.text.clone()),
            )
            .map_err(|_| refused("it cannot be written down"))
    }
}

impl Transport for Smtp {
    async fn send(&self, message: &Message) -> Result<(), SendError> {
        let message = self.build(message)?;
        self.transport
            .send(message)
            .await
            .map(drop)
            .map_err(|error| {
                // Only the reply's code: its text may repeat the address.
                let code = error.status().map(|code| code.to_string());
                match code {
                    Some(code) if FINAL.contains(&code.as_str()) => SendError::Refused(code),
                    Some(code) => SendError::Later(code),
                    None if error.is_timeout() => SendError::Later("it timed out".to_owned()),
                    None if error.is_tls() => SendError::Later("TLS failed".to_owned()),
                    None => SendError::Later("it could not be reached".to_owned()),
                }
            })
    }
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Smtp")
    }
}

/// Replies about the recipient or the mail itself (RFC 5321, 4.2.3, and RFC 6531). Every other one,
/// such as a password that is refused, is about us, and the mail waits until that is mended.
const FINAL: [&str; 6] = ["550", "551", "552", "553", "555", "556"];

/// For each command and its reply.
const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    fn smtp(url: &str) -> Result<Smtp, BadSmtp> {
        let config = Config {
            smtp_url_env: "SMTP_URL".to_owned(),
            from: "noreply@m3o.one".to_owned(),
        };
        Smtp::new(&config, &Secret::new(url))
    }

    fn message() -> Message {
        Message {
            to: "alice@example.com".to_owned(),
            from_name: "Ärger, \"Inc\"".to_owned(),
            subject: "Grüße".to_owned(),
            text: "Hello\r\n.\r\nstill the same mail: https://user.m3o.com/?token=x".to_owned(),
        }
    }

    /// Speaks just enough SMTP to take one mail, or refuse it with `reply`; gives what it heard.
    async fn serve(listener: TcpListener, reply: &'static str) -> String {
        let (socket, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = socket.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut heard = String::new();
        let mut data = false;
        writer.write_all(b"220 test\r\n").await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            heard.push_str(&line);
            heard.push('\n');
            let answer = match line.as_str() {
                "." if data => {
                    data = false;
                    "250 taken"
                }
                _ if data => continue,
                "DATA" => {
                    data = true;
                    "354 go on"
                }
                "QUIT" => break,
                line if line.starts_with("RCPT") => reply,
                _ => "250 fine",
            };
            writer
                .write_all(format!("{answer}\r\n").as_bytes())
                .await
                .unwrap();
            if line == "." {
                break;
            }
        }
        heard
    }

    async fn send(reply: &'static str) -> (Result<(), SendError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let smtp = smtp(&url).unwrap();
        let mail = message();
        let send = async move {
            let sent = smtp.send(&mail).await;
            drop(smtp);
            sent
        };
        tokio::join!(send, serve(listener, reply))
    }

    #[tokio::test]
    async fn a_mail_reaches_its_server_as_it_was_written() {
        let (sent, heard) = send("250 fine").await;
        assert_eq!(sent, Ok(()));
        assert!(heard.contains("RCPT TO:<alice@example.com>"), "{heard}");
        assert!(heard.contains("noreply@m3o.one"), "{heard}");
        assert!(heard.contains("still the same mail"), "{heard}");
    }

    #[tokio::test]
    async fn a_reply_of_5xx_is_for_good_and_one_of_4xx_is_not() {
        let (sent, _) = send("550 no such user alice@example.com").await;
        assert_eq!(sent, Err(SendError::Refused("550".to_owned())));
        let (sent, _) = send("450 busy").await;
        assert_eq!(sent, Err(SendError::Later("450".to_owned())));
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_tried_later() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        drop(listener);
        let sent = smtp(&url).unwrap().send(&message()).await;
        assert!(matches!(sent, Err(SendError::Later(_))));
    }

    #[tokio::test]
    async fn a_bad_url_is_refused_without_being_repeated() {
        for url in [
            "",
            "mail.example",
            "https://u:canary@mail.example",
            "smtps://",
        ] {
            let error = smtp(url).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
        assert!(smtp("smtps://u:p@mail.example:465").is_ok());
        assert!(smtp("smtp://mail.example:587?tls=required").is_ok());
    }
}
