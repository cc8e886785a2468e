package bench

// EventTypes is the number of events there are.
var EventTypes = len(eventTypes)
