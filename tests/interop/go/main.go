// A consumer and producer in Go that knows nothing of the system but names of its exchanges.
//
//	consume --url … --exchange order.exchange --keys order.created,order.cancelled
//	publish --url … --exchange order.exchange --key order.created --body …
//	declare --url … --queue product_order_queue
//
// `consume` prints {"ready": true} when its queue is bound, then one line of JSON per message, until
// it is ended.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func consume(channel *amqp.Channel, exchange, keys string) {
	lost := channel.NotifyClose(make(chan *amqp.Error, 1))
	check(channel.ExchangeDeclare(exchange, "topic", true, false, false, false, nil))
	queue := must(channel.QueueDeclare("", true, false, true, false, nil))
	for _, key := range strings.Split(keys, ",") {
		check(channel.QueueBind(queue.Name, key, exchange, false, nil))
	}
	deliveries := must(channel.Consume(queue.Name, "", true, true, false, false, nil))
	out := json.NewEncoder(os.Stdout)
	check(out.Encode(map[string]bool{"ready": true}))
	for message := range deliveries {
		check(out.Encode(line(message)))
	}
	log.Fatal("the broker has ended it: ", <-lost)
}

func line(message amqp.Delivery) map[string]any {
	return map[string]any{
		"routingKey": message.RoutingKey,
		"properties": map[string]any{
			"contentType": message.ContentType, "contentEncoding": message.ContentEncoding,
			"deliveryMode": message.DeliveryMode, "messageId": message.MessageId,
			"correlationId": message.CorrelationId, "type": message.Type,
			"timestamp": message.Timestamp.Unix(),
		},
		"headers": message.Headers,
		"body":    json.RawMessage(message.Body),
	}
}

func publish(channel *amqp.Channel, exchange, key, body string) {
	check(channel.Confirm(false))
	// Nothing but a body: no properties.
	message := amqp.Publishing{Body: []byte(body)}
	confirmation := must(channel.PublishWithDeferredConfirm(exchange, key, false, false, message))
	must(confirmation.WaitContext(context.Background()))
}

func main() {
	log.SetFlags(0)
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	url, exchange := flags.String("url", "", ""), flags.String("exchange", "", "")
	keys, queue := flags.String("keys", "", ""), flags.String("queue", "", "")
	key, body := flags.String("key", "", ""), flags.String("body", "", "")
	check(flags.Parse(os.Args[2:]))

	connection := must(amqp.Dial(*url))
	defer connection.Close()
	channel := must(connection.Channel())
	switch os.Args[1] {
	case "consume":
		consume(channel, *exchange, *keys)
	case "publish":
		publish(channel, *exchange, *key, *body)
	case "declare":
		must(channel.QueueDeclare(*queue, true, false, false, false, nil))
	}
}
