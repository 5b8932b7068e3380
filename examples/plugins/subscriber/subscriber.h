/*
 * subscriber.h - what the subscriber plug-in leaves in front of every packet, and the table that it asks.
 * For the plug-in, for who fills the table, and for consumers.
 */
#ifndef SUBSCRIBER_H
#define SUBSCRIBER_H

#include <stdint.h>

/* How a subscriber was known. */
enum subscriber_by {
    SUBSCRIBER_UNKNOWN = 0,
    SUBSCRIBER_BY_SESSION = 1, /* PPPoE session and the MAC of the client */
    SUBSCRIBER_BY_TEID = 2,    /* GTP-U tunnel endpoint */
    SUBSCRIBER_BY_ADDRESS = 3, /* address of the user, innermost */
};

/* At the front of the annotation. Also in the tag: user is id. */
struct subscriber {
    uint32_t id;        /* 0: not known */
    uint8_t by;         /* enum subscriber_by */
    uint8_t direction;  /* 1 from the subscriber, 2 to the subscriber, 0 not known */
    uint16_t session;   /* PPPoE session, 0 without */
    uint32_t teid;      /* TEID of GTP-U, 0 without */
    uint32_t zero;
};

/*
 * A key of the table, whose values are ids: 32 bits, little-endian. Everything as on the wire, the rest 0.
 * The table is a hash with keys of 24 bytes and values of 4.
 */
struct subscriber_key {
    uint8_t by;          /* enum subscriber_by */
    uint8_t zero;
    uint8_t session[2];  /* by session */
    uint8_t teid[4];     /* by TEID */
    uint8_t address[16]; /* by session: MAC of the client; by TEID: address of the endpoint, where such packets
                            go; by address: that of the user. IPv4 in the first 4 bytes. */
};

#endif
