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
	"errors"
	"flag"
	"log"
	"os"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

func consume(connection *amqp.Connection, exchange, keys string) error {
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	lost := connection.NotifyClose(make(chan *amqp.Error, 1))
	if err := channel.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
		return err
	}
	queue, err := channel.QueueDeclare("", true, false, true, false, nil)
	if err != nil {
		return err
	}
	for _, key := range strings.Split(keys, ",") {
		if err := channel.QueueBind(queue.Name, key, exchange, false, nil); err != nil {
			return err
		}
	}
	deliveries, err := channel.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]bool{"ready": true}); err != nil {
		return err
	}
	for message := range deliveries {
		if err := out.Encode(line(message)); err != nil {
			return err
		}
	}
	if reason := <-lost; reason != nil {
		return reason
	}
	return errors.New("the broker has cancelled the consumer")
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

func publish(connection *amqp.Connection, exchange, key, body string) error {
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := channel.Confirm(false); err != nil {
		return err
	}
	// Nothing but a body: no properties.
	message := amqp.Publishing{Body: []byte(body)}
	confirmation, err := channel.PublishWithDeferredConfirm(exchange, key, false, false, message)
	if err != nil {
		return err
	}
	_, err = confirmation.WaitContext(context.Background())
	return err
}

func main() {
	log.SetFlags(0)
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	url, exchange := flags.String("url", "", ""), flags.String("exchange", "", "")
	keys, queue := flags.String("keys", "", ""), flags.String("queue", "", "")
	key, body := flags.String("key", "", ""), flags.String("body", "", "")
	_ = flags.Parse(os.Args[2:])

	connection, err := amqp.Dial(*url)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	switch os.Args[1] {
	case "consume":
		err = consume(connection, *exchange, *keys)
	case "publish":
		err = publish(connection, *exchange, *key, *body)
	case "declare":
		var channel *amqp.Channel
		if channel, err = connection.Channel(); err == nil {
			_, err = channel.QueueDeclare(*queue, true, false, false, false, nil)
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}
