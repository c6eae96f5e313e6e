"""How a model learns: one loop for every stage.

State       TrainState                                                  (`training.state`)
Step        Player, make_step: players, accumulation, EMA, NaN guard    (`training.step`)
Spikes      SpikeConfig: batches far above the usual are left out       (`training.spikes`)
Optimizer   OptimizerConfig: optimizer, schedule, decay mask, clip      (`training.optimizer`)
Loop        TrainConfig, train                                          (`training.loop`)
Ends        Interrupted, TrainingDiverged, TooManySpikes                (`training.stops`)
Metrics     MetricsLog, Progress: JSON lines, TensorBoard, bar          (`training.metrics`)
Figures     rates, MFU, memory                                          (`training.figures`)
Goodput     Ledger, read_goodput: where the time went, over restarts    (`training.goodput`)
Profiles    Profiler: a window of steps for TensorBoard                 (`training.profiling`)
Runs        RunFolder, StageFolder: what a stage ate and made           (`training.run_folder`)
Held out    held_out, openings: speech that judges listen to            (`training.held_out`)
Signals     StopRequest: SIGTERM and SIGINT become a flag               (`training.signals`)
Stages      RunConfig, StageConfig, run_stages                          (`training.stages`)
            GradientStageConfig: what all trained stages share          (`training.gradient_stage`)
Recipes     stages that learn from speech alone                         (`training.pre`)
"""
