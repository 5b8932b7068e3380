/* Nothing at all, behind the interface: what a call costs. */
#include <flowyard_plugin.h>

static int steer(void *state, struct flowyard_batch *batch)
{
    (void)state, (void)batch;
    return 0;
}

static const struct flowyard_plugin plugin = {
    .abi = FLOWYARD_PLUGIN_ABI, .size = sizeof plugin, .name = "empty", .steer = steer,
};

FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void)
{
    return &plugin;
}
