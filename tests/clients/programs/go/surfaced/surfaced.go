// Package surfaced prints what a client hands to its user, one JSON object a line.
//
// Nothing about streams belongs here.
package surfaced

import (
	"encoding/json"
	"os"
)

// Event is one event as the client gave it.
type Event struct {
	Event string `json:"event"`
	ID    string `json:"id"`
	Data  string `json:"data"`
}

// Print writes the event to standard output at once.
func Print(event Event) {
	line, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}
