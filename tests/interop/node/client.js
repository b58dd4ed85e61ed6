// A consumer and producer in Node that knows nothing of the system but names of its exchanges.
//
//   consume --url … --exchange order.exchange --keys order.created,order.cancelled
//   publish --url … --exchange order.exchange --key order.created --body …
//   declare --url … --queue product_order_queue
//
// `consume` prints {"ready": true} when its queue is bound, then one line of JSON per message, until
// it is ended.

import { parseArgs } from "node:util";
import amqp from "amqplib";

async function consume(connection, { exchange, keys }) {
  const channel = await connection.createChannel();
  await channel.assertExchange(exchange, "topic", { durable: true });
  const { queue } = await channel.assertQueue("", { durable: true, exclusive: true });
  for (const key of keys.split(",")) await channel.bindQueue(queue, exchange, key);

  const lost = new Promise((_, reject) => {
    connection.on("close", () => reject(new Error("the connection was closed")));
  });
  await channel.consume(queue, (message) => print(line(message)), { noAck: true });
  print({ ready: true });
  await lost;
}

function line({ fields, properties, content }) {
  const { contentType, contentEncoding, deliveryMode, messageId, correlationId } = properties;
  const { type, timestamp, headers } = properties;
  return {
    routingKey: fields.routingKey,
    properties: {
      contentType, contentEncoding, deliveryMode, messageId, correlationId, type, timestamp,
    },
    headers,
    body: JSON.parse(content.toString()),
  };
}

async function publish(connection, { exchange, key, body }) {
  const channel = await connection.createConfirmChannel();
  // No options, so no properties; amqplib adds an empty table of headers by itself.
  channel.publish(exchange, key, Buffer.from(body));
  await channel.waitForConfirms();
}

async function declare(connection, { queue }) {
  const channel = await connection.createChannel();
  await channel.assertQueue(queue, { durable: true });
}

function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

const COMMANDS = { consume, publish, declare };

const NAMES = ["url", "exchange", "keys", "key", "body", "queue"];
const options = Object.fromEntries(NAMES.map((name) => [name, { type: "string" }]));
const { values, positionals } = parseArgs({ allowPositionals: true, options });
const connection = await amqp.connect(values.url);
await COMMANDS[positionals[0]](connection, values);
await connection.close();
