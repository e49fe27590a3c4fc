// r3labs/sse as its README shows it, with SubscribeRaw since the service has no `stream` parameter.
package main

import (
	"fmt"
	"os"

	"github.com/r3labs/sse/v2"

	"streamclients/surfaced"
)

func main() {
	client := sse.NewClient(os.Getenv("STREAM_URL"))

	err := client.SubscribeRaw(func(msg *sse.Event) {
		surfaced.Print(surfaced.Event{
			Event: string(msg.Event), ID: string(msg.ID), Data: string(msg.Data),
		})
	})
	fmt.Fprintln(os.Stderr, "Subscribe returned:", err)
}
