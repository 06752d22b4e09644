/*
 * control_socket.h: the listening sockets of the control API, and its secrets.
 */
#pragma once

#include "daemon/control/control.h"

/* A listening unix socket with mode 0660. One left behind by a dead process is replaced; one that answers is
 * -EADDRINUSE. The descriptor, or -errno. */
must_check int control_socket_unix(const char *path, char why[static CONTROL_WHY_BYTES]);
/* A listening TCP socket at "HOST:PORT". */
must_check int control_socket_tcp(const char *address, char why[static CONTROL_WHY_BYTES]);

#define CONTROL_TOKEN_MIN 16u
#define CONTROL_TOKEN_MAX 256u
/* The token in the file's first line, without spaces around it. */
must_check int control_token_read(const char *path, char token[static CONTROL_TOKEN_MAX],
				  char why[static CONTROL_WHY_BYTES]);
/* Does the header's value name the token? Takes as long whatever the answer. */
bool control_token_matches(const char *token, const char *authorization);
/* A whole small file as a text that the caller frees; NULL with why, which begins with the key that names the file. */
char *control_file_read(const char *key, const char *path, char why[static CONTROL_WHY_BYTES]);
