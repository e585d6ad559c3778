/*
 * empath.h: modules for Empath, a mail transfer agent.
 *
 * A module is a shared library that has a say in what is accepted:
 *
 *     #include "empath.h"
 *
 *     static int rcpt_to(em_context *context) {
 *         if (strstr(em_context_recipient(context, 0), "nobody@") == NULL) return EM_ACCEPT;
 *         em_context_set_response(context, "5.1.1 Nobody is not here");
 *         return 550;
 *     }
 *
 *     EM_DECLARE_MODULE(Validation, .name = "nobody", .rcpt_to = rcpt_to)
 *
 *     cc -shared -fPIC -o nobody.so nobody.c
 *
 * Callbacks run on threads of their own, several at once, each with a context of its own: what they share is
 * theirs to lock. A callback that takes longer than the module's deadline costs the client a 451 and keeps its thread
 * until it returns. Modules are never unloaded.
 */
#ifndef EMPATH_H
#define EMPATH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A module is loaded only by a daemon of the same ABI version. */
#define EM_ABI_VERSION 1

/* The answer of a validator that has no objection. */
#define EM_ACCEPT 0

/* What a module is: EM_KIND_Validation, whose validators are asked before Empath goes on. */
#define EM_KIND_Validation 1

typedef struct em_context em_context;

/*
 * Asked before Empath goes on. Returns EM_ACCEPT, or the code of a refusal, 400 to 599. Anything else counts as a
 * failure of the module: the client gets 451.
 */
typedef int (*em_validator)(em_context *context);

/* A module, as declare_module() returns it. Callbacks that are NULL have no objection. */
typedef struct em_module {
    uint32_t abi_version; /* EM_ABI_VERSION */
    uint32_t kind;        /* EM_KIND_... */
    const char *name;     /* for logs; UTF-8, not empty */

    /* Called once, before anything else, with the argument of the configuration or NULL. Not 0: Empath does not start. */
    int (*init)(const char *argument);

    em_validator connect;   /* a client has connected */
    em_validator ehlo;      /* it has said EHLO or HELO */
    em_validator mail_from; /* it has given the sender */
    em_validator rcpt_to;   /* it has given a recipient; asked for each */
    em_validator data;      /* the envelope is complete, the content is still to come */
} em_module;

#ifdef __cplusplus
#define EM_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define EM_EXPORT __attribute__((visibility("default")))
#endif

/* Defines declare_module(), the one symbol that Empath looks for. Fields are given as designated initialisers. */
#define EM_DECLARE_MODULE(KIND, ...)                                                                          \
    EM_EXPORT const em_module *declare_module(void);                                                          \
    const em_module *declare_module(void) {                                                                   \
        static const em_module module = {.abi_version = EM_ABI_VERSION, .kind = EM_KIND_##KIND, __VA_ARGS__}; \
        return &module;                                                                                       \
    }

/* How the functions below reach the daemon. Not for direct use. */
typedef struct em_functions {
    const char *(*peer)(const em_context *context);
    const char *(*local)(const em_context *context);
    const char *(*helo)(const em_context *context);
    const char *(*listener)(const em_context *context, const char *name);
    const char *(*sender)(const em_context *context);
    size_t (*recipients)(const em_context *context);
    const char *(*recipient)(const em_context *context, size_t index);
    const char *(*metadata)(const em_context *context, const char *name);
    int (*set_metadata)(em_context *context, const char *name, const char *value);
    int (*set_response)(em_context *context, const char *text);
    const char *(*name)(const em_context *context);
    const char *(*user)(const em_context *context);
    const char *(*tls_version)(const em_context *context);
    const char *(*tls_cipher)(const em_context *context);
    const char *(*tls_certificate)(const em_context *context);
} em_functions;

struct em_context {
    const em_functions *functions;
};

/*
 * What is asked about. A context and the strings that it returns are valid until the callback returns (a value of
 * metadata: or until it is set again). What is not known yet is NULL.
 */

/* The client's address and port: "192.0.2.1:40000", "[2001:db8::1]:40000". */
static inline const char *em_context_peer(const em_context *context) {
    return context->functions->peer(context);
}

/* Our address and port. */
static inline const char *em_context_local(const em_context *context) {
    return context->functions->local(context);
}

/* What the client called itself in EHLO or HELO. */
static inline const char *em_context_helo(const em_context *context) {
    return context->functions->helo(context);
}

/* The host name of the client, where a trusted proxy has told it. */
static inline const char *em_context_name(const em_context *context) {
    return context->functions->name(context);
}

/* The user as whom the client has authenticated. */
static inline const char *em_context_user(const em_context *context) {
    return context->functions->user(context);
}

/* "TLSv1.3" or "TLSv1.2"; NULL in clear text. */
static inline const char *em_context_tls_version(const em_context *context) {
    return context->functions->tls_version(context);
}

/* The cipher suite: "TLS_AES_256_GCM_SHA384"; NULL in clear text. */
static inline const char *em_context_tls_cipher(const em_context *context) {
    return context->functions->tls_cipher(context);
}

/* The subject of the client's certificate (RFC 4514: "CN=client.example.test"), if it has shown a valid one. */
static inline const char *em_context_tls_certificate(const em_context *context) {
    return context->functions->tls_certificate(context);
}

/* A value of the `context` in the listener's configuration. */
static inline const char *em_context_listener(const em_context *context, const char *name) {
    return context->functions->listener(context, name);
}

/* The reverse-path without brackets; "" for the null reverse-path. */
static inline const char *em_context_sender(const em_context *context) {
    return context->functions->sender(context);
}

/* How many recipients are asked about: one in rcpt_to, all that were accepted in data. */
static inline size_t em_context_recipients(const em_context *context) {
    return context->functions->recipients(context);
}

/* A recipient without brackets. */
static inline const char *em_context_recipient(const em_context *context, size_t index) {
    return context->functions->recipient(context, index);
}

/* What is remembered about the message under a name: in data what all modules stored before, and what this call stored. */
static inline const char *em_context_metadata(const em_context *context, const char *name) {
    return context->functions->metadata(context, name);
}

/*
 * Remembers a value under a name; it travels with the message until its end. UTF-8, 16 KiB for all names and values of a
 * message. Returns 0, or -1 when nothing was stored. Has no effect in connect and ehlo.
 */
static inline int em_context_set_metadata(em_context *context, const char *name, const char *value) {
    return context->functions->set_metadata(context, name, value);
}

/*
 * The text of a refusal, with or without an enhanced status code in front: "5.1.1 No such user". One line; at most 400
 * octets of it are used. Returns 0, or -1 when nothing was set.
 */
static inline int em_context_set_response(em_context *context, const char *text) {
    return context->functions->set_response(context, text);
}

#ifdef __cplusplus
}
#endif

#endif
